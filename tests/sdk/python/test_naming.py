"""Other names than loopback addresses: a domain, listed addresses, and a certificate that the operator brings."""

import json
import socket
import ssl
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from azure.iot.device.exceptions import ClientError
from azure.iot.hub.sastoken import SasToken
from certificates import make_with_openssl
from test_hub import connect, create, provision

DEVICE = {"client": "azure-iot-device", "version": version("azure-iot-device"), "credential": "symmetric key"}
CURL = {"client": "curl", "version": subprocess.run(["curl", "-V"], capture_output=True, text=True).stdout.split()[1]}
DOMAIN = "fleet.test"
UNKNOWN_HUB = (401, "IotHubNotFound")


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


def code(body: dict) -> str:
    """The name of the error that a hub answers with."""
    return body["Message"].removeprefix("ErrorCode:").split(";")[0]


def read_device(muster, url: str, *options: str) -> tuple[int, dict]:
    """Status and body of what a hub's owner is answered about dev-1 at a URL, asked by curl."""
    members = dict(member.split("=", 1) for member in muster.hub["connectionString"].split(";"))
    token = SasToken(members["HostName"], members["SharedAccessKey"], members["SharedAccessKeyName"])
    command = ["curl", "-sS", "-w", "\n%{http_code}", "--cacert", muster.endpoints["caFile"]]
    command += ["-H", f"Authorization: {token}", *options, f"{url}/devices/dev-1?api-version=2021-04-12"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    body, status = done.stdout.rsplit("\n", 1)
    return int(status), json.loads(body) if body else {}


@pytest.mark.shows(**CURL, transport="https", credential="policy", feature="a hub answers to its own names alone")
@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
def test_a_hub_at_an_address_answers_to_its_own_hosts_alone(muster, protocol):
    muster.command("hub", "create", "other")
    create(muster, "dev-1")
    own, other = "127.0.0.2", "127.0.0.3"
    for host in [own, f"{own}:443", "localhost"]:
        status, body = read_device(muster, f"https://{own}", protocol, "-H", f"Host: {host}")
        assert (status, body["deviceId"]) == (200, "dev-1"), host
    for host in ["127", other, f"{other}:443", "127.0.0.1", "hub.example.org"]:
        status, body = read_device(muster, f"https://{own}", protocol, "-H", f"Host: {host}")
        assert (status, code(body)) == UNKNOWN_HUB and "dev-1" not in str(body), host
        assert muster.log.wait_for(f"{own} as {host.removesuffix(':443')}"), muster.log
    redirected = ["-k", "--connect-to", f"{other}:443:{own}:443"]
    for options in (redirected, ["-H", f"Host: {own}"]):
        status, body = read_device(muster, f"https://{other}", protocol, *options)
        assert (status, code(body)) == UNKNOWN_HUB, options
    assert read_device(muster, f"https://{own}", "--http1.1", "-H", "Host;")[0] == 400
    assert read_device(muster, f"https://{own}", "--http1.1", "-H", f"Host: {own}:port")[0] == 400


@pytest.mark.shows(**CURL, transport="https", credential="policy", feature="SNI and host must name one hub (--domain)")
@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
def test_a_hub_under_a_domain_answers_to_its_own_hosts_alone(muster_with, names, protocol):
    muster = muster_with("--domain", DOMAIN)
    muster.command("hub", "create", "other")
    create(muster, "dev-1")
    resolved = [protocol, "-k"]
    for name in [f"hub.{DOMAIN}", f"other.{DOMAIN}", f"dps.{DOMAIN}", f"global.{DOMAIN}", f"stale.{DOMAIN}"]:
        resolved += ["--resolve", f"{name}:443:127.0.0.1"]
    cases = [
        ("hub", f"hub.{DOMAIN}", 200),
        ("hub", f"HUB.{DOMAIN}:443", 200),
        ("stale", f"hub.{DOMAIN}", 200),
        ("hub", f"other.{DOMAIN}", 401),
        ("other", f"hub.{DOMAIN}", 401),
        ("dps", f"hub.{DOMAIN}", 401),
        ("global", f"hub.{DOMAIN}", 401),
        ("hub", f"dps.{DOMAIN}", 401),
        ("hub", "hub.example.org", 401),
    ]
    for server_name, host, expected in cases:
        url = f"https://{server_name}.{DOMAIN}"
        status, body = read_device(muster, url, *resolved, "-H", f"Host: {host}")
        assert status == expected, (server_name, host, body)
        assert expected == 200 or code(body) == UNKNOWN_HUB[1], (server_name, host, body)
        assert ("dev-1" in str(body)) == (expected == 200), (server_name, host)


@pytest.mark.shows(**DEVICE, feature="connect by way of a gateway's host name (gateway_hostname)")
@pytest.mark.parametrize("transport", ["mqtt", "mqtt-ws"])
def test_a_gateway_leads_to_the_hub_that_is_meant_or_nowhere(muster, transport):
    muster.command("hub", "create", "other")
    key = create(muster, "dev-1")
    client = connect(muster, "dev-1", key, transport, gateway_hostname=muster.hub["hostName"])
    client.send_message("25.1")
    client.shutdown()
    with pytest.raises(ClientError):
        connect(muster, "dev-1", key, transport, gateway_hostname="127.0.0.3")


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
