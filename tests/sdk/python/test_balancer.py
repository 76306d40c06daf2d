"""azure-iot-device through a TCP balancer that says by PROXY protocol v2 whom it brings."""

import socket
import struct
import threading
from importlib.metadata import version

import pytest
from azure.iot.device.exceptions import ClientError
from provisioningserviceclient.models import AttestationMechanism, IndividualEnrollment
from test_hub import connect
from test_provisioning import OTHER_KEY, by_key, service_of

DEVICE = {"client": "azure-iot-device", "version": version("azure-iot-device"), "credential": "symmetric key"}
# Where the balancer connects from, and where every device seems to be.
BALANCER = "127.0.9.9"
SOURCE = ("203.0.113.7", 40000)
# The devices' ports belong to the balancer, so that the server listens behind them.
PORTS = {8883: 18883, 443: 10443}
SERVER = ["--mqtts-port", "18883", "--https-port", "10443"]
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def header(source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    """PROXY protocol version 2, command PROXY, TCP over IPv4 (section 2.2 of its specification)."""
    ends = socket.inet_aton(source[0]) + socket.inet_aton(destination[0]) + struct.pack("!HH", source[1], destination[1])
    return SIGNATURE + struct.pack("!BBH", 0x21, 0x11, len(ends)) + ends


def forward(source: socket.socket, target: socket.socket):
    """Passes bytes on until one side ends, and then ends the other."""
    try:
        while passed := source.recv(65536):
            target.sendall(passed)
    except OSError:
        pass
    finally:
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Balancer:
    """Takes connections on the devices' ports of some addresses, and brings all of them to one address of the server."""

    def __init__(self, server: str, addresses: list[str]):
        self.server = server
        self.brought = 0
        self.listening = [socket.create_server((address, port)) for address in addresses for port in PORTS]
        for one in self.listening:
            threading.Thread(target=self.accept, args=[one], daemon=True).start()

    def accept(self, listening: socket.socket):
        while True:
            try:
                device, _ = listening.accept()
            except OSError:
                return
            dialled = device.getsockname()
            server = socket.create_connection((self.server, PORTS[dialled[1]]), source_address=(BALANCER, 0))
            server.sendall(header(SOURCE, dialled))
            self.brought += 1
            for ends in [(device, server), (server, device)]:
                threading.Thread(target=forward, args=ends, daemon=True).start()

    def close(self):
        for one in self.listening:
            one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture
def behind(muster_with, tmp_path):
    """A server that lists the balancer, and the balancer in front of it."""
    config = tmp_path / "muster.toml"
    config.write_text(f'[listen]\nbalancers = ["{BALANCER}/32"]\n')
    muster = muster_with("--config", str(config), *SERVER)
    device_endpoint = muster.provisioning["deviceEndpoint"]
    balancer = Balancer(device_endpoint, [device_endpoint, muster.hub["hostName"]])
    yield muster, balancer
    balancer.close()


@pytest.mark.shows(**DEVICE, feature="provision and connect through a balancer (PROXY protocol v2)")
@pytest.mark.parametrize("transport", ["mqtt", "mqtt-ws"])
def test_a_device_is_provisioned_and_connects_through_a_balancer(behind, transport):
    muster, balancer = behind
    entry = IndividualEnrollment.create("dev-1", AttestationMechanism(type="symmetricKey"))
    key = service_of(muster).create_or_update(entry).attestation.symmetric_key.primary_key
    assert by_key(muster, "dev-1", key, transport).register().status == "assigned"
    client = connect(muster, "dev-1", key, transport)
    client.send_message("25.1")
    assert client.get_twin()["desired"]["$version"] == 1
    client.shutdown()
    assert muster.command("why", "dev-1")["peer"] == SOURCE[0]
    assert balancer.brought >= 3


@pytest.mark.shows(**DEVICE, feature="a refusal names the device's address, not the balancer's")
@pytest.mark.parametrize("transport", ["mqtt", "mqtt-ws"])
def test_a_refusal_names_the_device_and_not_the_balancer(behind, transport):
    muster, _ = behind
    service_of(muster).create_or_update(
        IndividualEnrollment.create("dev-1", AttestationMechanism(type="symmetricKey"))
    )
    with pytest.raises(ClientError):
        by_key(muster, "dev-1", OTHER_KEY, transport).register()
    refused = muster.command("why", "dev-1")
    assert (refused["outcome"], refused["peer"]) == ("refused", SOURCE[0])


def test_a_balancer_that_says_nothing_is_closed_and_told_of(behind):
    muster, _ = behind
    with socket.create_connection((muster.hub["hostName"], 18883), source_address=(BALANCER, 0)) as mute:
        mute.sendall(b"GET / HTTP/1.1\r\n\r\n")
        try:
            assert mute.recv(1) == b""
        except ConnectionResetError:
            pass
    assert muster.log.wait_for(f"connection from a balancer closed balancer={BALANCER}")


def test_a_balancer_that_is_none_is_told_before_the_start(muster):
    config = muster.folder / "muster.toml"
    config.write_text('[listen]\nbalancers = ["lb.example.org"]\n')
    checked = muster.run("config", "check", "--config", str(config))
    assert checked.returncode == 1 and "listen.balancers" in checked.stderr
