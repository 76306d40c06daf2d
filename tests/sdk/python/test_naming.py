"""Other names than loopback addresses: a domain, listed addresses, and a certificate that the operator brings."""

import socket
import ssl
from importlib.metadata import version
from pathlib import Path

import pytest
from certificates import make_with_openssl
from test_hub import connect, provision

DEVICE = {"client": "azure-iot-device", "version": version("azure-iot-device"), "credential": "symmetric key"}
DOMAIN = "fleet.test"


@pytest.fixture
def names(monkeypatch):
    """Resolves the names of the domain as DNS would: the suite cannot write the machine's hosts file."""
    resolve = socket.getaddrinfo

    def resolved(host, *arguments, **named):
        is_ours = isinstance(host, str) and host.endswith(f".{DOMAIN}")
        return resolve("127.0.0.1" if is_ours else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)


@pytest.mark.shows(**DEVICE, transport="mqtt, mqtt-ws", feature="connect under a domain (--domain)")
def test_a_fleet_lives_under_a_domain(muster_with, names):
    muster = muster_with("--domain", DOMAIN)
    assert muster.provisioning["deviceEndpoint"] == f"global.{DOMAIN}"
    assert muster.provisioning["serviceEndpoint"] == f"dps.{DOMAIN}"
    assert muster.hub["hostName"] == f"hub.{DOMAIN}"
    key = provision(muster, "dev-1", {"temperature": 20})
    for transport in ["mqtt", "mqtt-ws"]:
        client = connect(muster, "dev-1", key, transport)
        client.send_message("25.1")
        assert client.get_twin()["desired"]["temperature"] == 20
        client.shutdown()
    told = muster.run("hosts", "--output", "table").stdout.split()
    assert {f"hub.{DOMAIN}", f"dps.{DOMAIN}", f"global.{DOMAIN}"} <= set(told)


@pytest.mark.shows(**DEVICE, transport="mqtt", feature="provision and connect at listed addresses (--address)")
def test_resources_are_given_the_listed_addresses(muster_with):
    muster = muster_with("--address", "127.0.7.1,127.0.7.9")
    assert muster.provisioning["deviceEndpoint"] == "127.0.7.1"
    assert muster.hub["hostName"] == "127.0.7.9"
    client = connect(muster, "dev-1", provision(muster, "dev-1"))
    client.send_message("25.1")
    client.shutdown()
    refused = muster.run("hub", "create", "hub2")
    assert refused.returncode == 1 and "--address" in refused.stderr


def served(host: str, port: int, authority: Path) -> dict:
    """The certificate that a server shows to clients that trust `authority` alone."""
    trust = ssl.create_default_context(cafile=str(authority))
    with socket.create_connection((host, port), timeout=10) as plain:
        with trust.wrap_socket(plain, server_hostname=host) as secure:
            return secure.getpeercert()


@pytest.mark.shows(**DEVICE, transport="mqtt", feature="connect where the operator brought the server's certificate")
def test_a_certificate_of_the_operator_is_shown_for_its_names(muster_with, tmp_path):
    make_with_openssl(tmp_path, "house", None, ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"])
    alternatives = "subjectAltName=IP:127.0.0.2,DNS:127.0.0.2"
    make_with_openssl(tmp_path, "server", "house", [alternatives, "extendedKeyUsage=serverAuth"])
    config = tmp_path / "muster.toml"
    chain, key = tmp_path / "server.chain.pem", tmp_path / "server.key.pem"
    config.write_text(f'[tls]\ncertificate_file = "{chain}"\nkey_file = "{key}"\n')
    muster = muster_with("--config", str(config))
    secret = provision(muster, "dev-1")
    shown = served("127.0.0.2", 8883, tmp_path / "house.pem")
    assert dict(pair[0] for pair in shown["subject"])["commonName"] == "server"
    muster.endpoints["caFile"] = str(tmp_path / "house.pem")
    client = connect(muster, "dev-1", secret)
    client.send_message("25.1")
    client.shutdown()
    key.write_text("no key")
    muster.stop()
    checked = muster.run("serve", "--config", str(config))
    assert checked.returncode == 1 and "server.key.pem" in checked.stderr
