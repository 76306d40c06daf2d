"""What `muster demo --keep` leaves behind is an ordinary deployment, which unmodified clients use as any other."""

import json
import os
import select
import signal
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from azure.iot.device import X509, IoTHubDeviceClient, ProvisioningDeviceClient
from azure.iot.device.exceptions import ClientError
from azure.iot.hub import IoTHubRegistryManager

DEMO_S = 60
STOP_S = 20
STORY = {"client": "azure-iot-hub", "version": version("azure-iot-hub"), "transport": "https", "credential": "policy"}


@pytest.fixture
def kept(tmp_path):
    """The demo's evidence, while its server runs."""
    done = subprocess.run(
        [os.environ["MUSTER_BIN"], "demo", "--keep", "--output", "json"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=DEMO_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    evidence = json.loads(done.stdout)
    evidence["endpoints"] = json.loads(Path(evidence["kept"]["endpointsFile"]).read_text())
    for variable in ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"]:
        os.environ[variable] = evidence["endpoints"]["caFile"]
    yield evidence
    # The server is nobody's child by now: its end is told by a descriptor of the process.
    process = os.pidfd_open(evidence["kept"]["pid"])
    signal.pidfd_send_signal(process, signal.SIGTERM)
    ended, _, _ = select.select([process], [], [], STOP_S)
    os.close(process)
    assert ended and not Path(evidence["kept"]["endpointsFile"]).exists()


@pytest.mark.shows(**STORY, feature="twins and devices that the demo left")
def test_the_operator_finds_the_twins_that_the_demo_left(kept):
    hub = kept["endpoints"]["hubs"][0]
    assert hub["hostName"] == kept["hub"]["hostName"]
    registry = IoTHubRegistryManager(hub["connectionString"])
    names = sorted(device.device_id for device in registry.get_devices())
    assert names == ["cheesecave-device1", "cheesecave-device2"]
    twin = registry.get_twin("cheesecave-device1")
    assert twin.properties.desired["temperature"] == twin.properties.reported["temperature"] == 50.123
    assert twin.properties.desired["telemetryDelay"] == "1"
    assert twin.properties.desired["$version"] == kept["desired"]["desiredVersion"]
    assert twin.properties.reported["$version"] == kept["desired"]["reportedVersion"]
    assert twin.etag == kept["desired"]["etagAfter"]


@pytest.mark.shows(
    client="azure-iot-device",
    version=version("azure-iot-device"),
    transport="mqtt",
    credential="X.509",
    feature="a device of the demo comes back to its hub, and is refused at provisioning",
)
def test_a_device_of_the_demo_returns_to_its_hub_and_not_to_provisioning(kept):
    name, folder = "cheesecave-device1", Path(kept["kept"]["certificates"])
    x509 = X509(cert_file=str(folder / f"{name}.chain.pem"), key_file=str(folder / f"{name}.key.pem"))
    authority = Path(kept["endpoints"]["caFile"]).read_text()
    device = IoTHubDeviceClient.create_from_x509_certificate(
        x509=x509, hostname=kept["hub"]["hostName"], device_id=name, server_verification_cert=authority
    )
    device.connect()
    device.send_message("still here")
    assert device.get_twin()["reported"]["temperature"] == 50.123
    device.shutdown()
    provisioning = ProvisioningDeviceClient.create_from_x509_certificate(
        provisioning_host=kept["provisioningService"]["deviceEndpoint"],
        registration_id=name,
        id_scope=kept["provisioningService"]["idScope"],
        x509=x509,
        server_verification_cert=authority,
    )
    with pytest.raises(ClientError):
        provisioning.register()


def test_the_messages_of_the_demo_are_still_there_at_the_same_places(kept):
    monitor = ["events", "monitor", "--from", "start", "--count", "9", "--timeout", "10", "--output", "json"]
    done = subprocess.run(
        [os.environ["MUSTER_BIN"], "--data", kept["kept"]["folder"], *monitor],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    found = {event["systemProperties"]["messageId"]: (event["partition"], event["offset"]) for event in events}
    messages = [message for device in kept["devices"] for message in device["messages"]]
    assert found == {message["messageId"]: (message["partition"], message["offset"]) for message in messages}
