"""azure-iot-device at a hub of Muster: telemetry, twins, desired properties, and a restart in the middle."""

import queue
import threading
from importlib.metadata import version

import pytest
from azure.iot.device import IoTHubDeviceClient, Message
from azure.iot.device.exceptions import CredentialError
from azure.iot.hub import IoTHubRegistryManager
from certificates import make, thumbprint
from provisioningserviceclient.models import AttestationMechanism, IndividualEnrollment, InitialTwin
from test_provisioning import by_certificate, by_client_certificate, by_key, service_of

from azure.iot.device import X509

DEVICE = {"client": "azure-iot-device", "version": version("azure-iot-device")}
TRANSPORTS = ["mqtt", "mqtt-ws"]
CREDENTIALS = ["symmetric key", "X.509"]


def provision(muster, name: str, desired: dict | None = None) -> str:
    """Provisions a device by its own key, and returns the key."""
    entry = IndividualEnrollment.create(name, AttestationMechanism(type="symmetricKey"))
    if desired is not None:
        entry.initial_twin = InitialTwin.create(tags={"place": "cave"}, desired_properties=desired)
    key = service_of(muster).create_or_update(entry).attestation.symmetric_key.primary_key
    assert by_key(muster, name, key).register().status == "assigned"
    return key


def create(muster, name: str) -> str:
    """Creates an identity by keys that the hub makes, and returns one: registering takes seconds, as long as a poll."""
    registry = IoTHubRegistryManager.from_connection_string(muster.hub["connectionString"])
    return registry.create_device_with_sas(name, "", "", "enabled").authentication.symmetric_key.primary_key


def at_hub(muster, name: str, transport: str) -> dict:
    """What every client of the hub is told, whatever its credential."""
    return {
        "hostname": muster.hub["hostName"],
        "device_id": name,
        "server_verification_cert": muster.authority,
        "websockets": transport == "mqtt-ws",
        "connection_retry_interval": 1,
    }


def connect(muster, name: str, key: str, transport: str = "mqtt", **options) -> IoTHubDeviceClient:
    told = at_hub(muster, name, transport)
    client = IoTHubDeviceClient.create_from_symmetric_key(symmetric_key=key, **told, **options)
    client.connect()
    return client


def connect_by_certificate(muster, name: str, folder, transport: str = "mqtt") -> IoTHubDeviceClient:
    x509 = X509(cert_file=str(folder / f"{name}.chain.pem"), key_file=str(folder / f"{name}.key.pem"))
    client = IoTHubDeviceClient.create_from_x509_certificate(x509=x509, **at_hub(muster, name, transport))
    client.connect()
    return client


def enter(muster, name: str, credential: str, folder, transport: str) -> IoTHubDeviceClient:
    """Creates an identity in the registry by a credential, and connects its device."""
    if credential == "symmetric key":
        return connect(muster, name, create(muster, name), transport)
    make(muster, folder, "device", name)
    thumb = thumbprint((folder / f"{name}.pem").read_bytes())
    registry = IoTHubRegistryManager.from_connection_string(muster.hub["connectionString"])
    registry.create_device_with_x509(name, thumb, thumb, "enabled")
    return connect_by_certificate(muster, name, folder, transport)


@pytest.mark.shows(**DEVICE, credential="symmetric key", feature="connect, telemetry, twin get, reported patch")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_provisioned_device_sends_and_reports(muster, transport):
    key = provision(muster, "dev-1", {"temperature": 50.5, "big": 4503599627370495})
    client = connect(muster, "dev-1", key, transport)
    message = Message("25.1")
    message.custom_properties["alert"] = "no & yes/maybe"
    message.content_type = "application/json"
    client.send_message(message)
    twin = client.get_twin()
    assert twin["desired"] == {"temperature": 50.5, "big": 4503599627370495, "$version": 1}
    client.patch_twin_reported_properties({"temperature": 50.5, "nested": {"a": 1}})
    assert client.get_twin()["reported"] == {"temperature": 50.5, "nested": {"a": 1}, "$version": 2}
    client.patch_twin_reported_properties({"nested": None})
    assert client.get_twin()["reported"] == {"temperature": 50.5, "$version": 3}
    client.shutdown()


@pytest.mark.shows(**DEVICE, credential="X.509", feature="provision self-signed, connect with the same certificate")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_device_connects_with_the_certificate_it_was_provisioned_by(muster, tmp_path, transport):
    make(muster, tmp_path, "device", "dev-x")
    pem = (tmp_path / "dev-x.pem").read_text()
    service_of(muster).create_or_update(IndividualEnrollment.create("dev-x", by_client_certificate(pem)))
    assert by_certificate(muster, "dev-x", tmp_path, transport).register().status == "assigned"
    client = connect_by_certificate(muster, "dev-x", tmp_path, transport)
    client.send_message("25.1")
    assert client.get_twin()["reported"] == {"$version": 1}
    client.shutdown()


@pytest.mark.shows(**DEVICE, feature="telemetry, twin get, reported patch, desired patches in order")
@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_device_sends_reports_and_is_told_by_each_credential(muster, tmp_path, transport, credential):
    client = enter(muster, "dev-1", credential, tmp_path, transport)
    client.send_message("25.1")
    client.patch_twin_reported_properties({"temperature": 50.5})
    assert client.get_twin()["reported"] == {"temperature": 50.5, "$version": 2}
    told = queue.Queue()
    # Setting the handler subscribes, and returns when that is granted.
    client.on_twin_desired_properties_patch_received = told.put
    for step in range(3):
        muster.command("twin", "update", "dev-1", "--desired", f'{{"step": {step}}}')
    patches = [told.get(timeout=30) for _ in range(3)]
    assert patches == [{"step": step, "$version": 2 + step} for step in range(3)]
    client.shutdown()
    shown = muster.command("events", "monitor", "--from", "start", "--count", "1")
    assert (shown["deviceId"], shown["body"]) == ("dev-1", "25.1")


@pytest.mark.shows(**DEVICE, transport="mqtt", credential="symmetric key", feature="a wrong key is refused by the hub")
def test_a_wrong_key_is_refused(muster):
    create(muster, "dev-1")
    with pytest.raises(CredentialError):
        connect(muster, "dev-1", "YW5vdGhlciBrZXkgb2YgdGhpcnR5LXR3byBieXRlcyE=")


@pytest.mark.shows(**DEVICE, credential="symmetric key", feature="reconnect after a server restart")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_device_comes_back_after_a_restart_without_subscribing_again(muster, transport):
    key = create(muster, "dev-1")
    client = connect(muster, "dev-1", key, transport)
    client.patch_twin_reported_properties({"before": True})
    assert client.get_twin()["reported"] == {"before": True, "$version": 2}
    told = queue.Queue()
    client.on_twin_desired_properties_patch_received = told.put
    back = threading.Event()
    client.on_connection_state_change = lambda: back.set() if client.connected else None
    muster.restart()
    assert back.wait(60), muster.log
    # The reply can only arrive if the hub remembered the subscription: this client never subscribes twice.
    assert client.get_twin()["reported"] == {"before": True, "$version": 2}
    muster.command("twin", "update", "dev-1", "--desired", '{"after": 1}')
    # The client reads the twin too whenever it has connected, and tells of that first.
    while told.get(timeout=30) != {"after": 1, "$version": 2}:
        pass
    client.send_message("after")
    client.shutdown()
