"""azure-iot-hub manages identities and twins of a hub, and devices feel it at once."""

import queue
import threading
from contextlib import suppress
from importlib.metadata import version

import pytest
from azure.iot.device import IoTHubModuleClient
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import Twin, TwinProperties
from certificates import make, thumbprint
from msrest.exceptions import HttpOperationError
from test_hub import connect, connect_by_certificate, create, provision

SERVICE = {"client": "azure-iot-hub", "version": version("azure-iot-hub"), "transport": "https", "credential": "policy"}
KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
OTHER_KEY = "YW5vdGhlciBrZXkgb2YgdGhpcnR5LXR3byBieXRlcyE="
THIRD_KEY = "YSB0aGlyZCBrZXkgb2YgdGhpcnR5LXR3byBieXRlcyE="
CUT_OFF_S = 1


def registry_of(muster) -> IoTHubRegistryManager:
    return IoTHubRegistryManager.from_connection_string(muster.hub["connectionString"])


def gone(client) -> threading.Event:
    """Fires when the client notices that it was cut off."""
    event = threading.Event()
    client.on_connection_state_change = lambda: None if client.connected else event.set()
    return event


@pytest.mark.shows(**SERVICE, feature="identities: create, read, update, list, statistics, delete")
def test_identities_live_through_the_registry_manager(muster):
    registry = registry_of(muster)
    made = registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    assert made.authentication.symmetric_key.primary_key == KEY
    read = registry.get_device("dev-1")
    assert (read.etag, read.generation_id, read.connection_state) == (made.etag, made.generation_id, "Disconnected")
    changed = registry.update_device_with_sas("dev-1", read.etag, OTHER_KEY, KEY, "disabled")
    assert changed.status == "disabled" and changed.etag != made.etag
    with pytest.raises(Exception, match="412|Precondition"):
        registry.update_device_with_sas("dev-1", made.etag, KEY, OTHER_KEY, "enabled")
    with pytest.raises(Exception, match="409|already registered|Conflict"):
        registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    registry.create_device_with_x509("dev-2", "A" * 40, "B" * 40, "enabled")
    assert sorted(device.device_id for device in registry.get_devices()) == ["dev-1", "dev-2"]
    counts = registry.get_device_registry_statistics()
    assert (counts.total_device_count, counts.enabled_device_count, counts.disabled_device_count) == (2, 1, 1)
    registry.delete_device("dev-1")
    with pytest.raises(Exception, match="404|Not Found"):
        registry.get_device("dev-1")


@pytest.mark.shows(**SERVICE, feature="twins: read, patch, replace; desired properties reach the device in order")
def test_desired_properties_reach_the_device_in_order(muster):
    key = provision(muster, "dev-1", {"temperature": 20})
    client = connect(muster, "dev-1", key)
    told = []
    enough = threading.Event()

    def on_patch(patch):
        told.append(patch)
        if len(told) == 5:
            enough.set()

    client.on_twin_desired_properties_patch_received = on_patch
    registry = registry_of(muster)
    for step in range(5):
        twin = Twin(tags={"step": step}, properties=TwinProperties(desired={"temperature": 50 + step}))
        registry.update_twin("dev-1", twin)
    assert enough.wait(20), told
    assert [patch["$version"] for patch in told] == [2, 3, 4, 5, 6]
    assert [patch["temperature"] for patch in told] == [50, 51, 52, 53, 54]
    client.patch_twin_reported_properties({"temperature": 54})
    twin = registry.get_twin("dev-1")
    assert twin.tags == {"place": "cave", "step": 4}
    assert twin.properties.desired["temperature"] == 54
    assert twin.properties.reported["temperature"] == 54
    assert twin.connection_state == "Connected"
    registry.replace_twin("dev-1", Twin(tags={}, properties=TwinProperties(desired={"only": True})))
    assert client.get_twin()["desired"] == {"only": True, "$version": 7}
    client.shutdown()


@pytest.mark.shows(
    client="azure-iot-device",
    version=version("azure-iot-device"),
    transport="mqtt",
    credential="symmetric key",
    feature="the announced model is shown in the twin",
)
def test_a_twin_names_the_model_that_its_device_announced(muster):
    key = create(muster, "dev-1")
    assert muster.command("twin", "show", "dev-1")["modelId"] == ""
    client = connect(muster, "dev-1", key, product_info="dtmi:com:example:Thermostat;1")
    assert muster.command("twin", "show", "dev-1")["modelId"] == "dtmi:com:example:Thermostat;1"
    client.shutdown()


DEVICE, MODULE = "dev-1", "mod-1"


def device_by_key(muster, folder, transport):
    registry_of(muster).create_device_with_sas(DEVICE, KEY, OTHER_KEY, "enabled")
    return connect(muster, DEVICE, KEY, transport)


def device_by_thumbprint(muster, folder, transport):
    make(muster, folder, "device", DEVICE)
    thumb = thumbprint((folder / f"{DEVICE}.pem").read_bytes())
    registry_of(muster).create_device_with_x509(DEVICE, thumb, thumb, "enabled")
    return connect_by_certificate(muster, DEVICE, folder, transport)


def module_by_key(muster, folder, transport):
    registry = registry_of(muster)
    registry.create_device_with_sas(DEVICE, KEY, OTHER_KEY, "enabled")
    registry.create_module_with_sas(DEVICE, MODULE, "", KEY, OTHER_KEY)
    client = IoTHubModuleClient.create_from_connection_string(
        f"HostName={muster.hub['hostName']};DeviceId={DEVICE};ModuleId={MODULE};SharedAccessKey={KEY}",
        server_verification_cert=muster.authority,
        websockets=transport == "mqtt-ws",
        connection_retry_interval=1,
    )
    client.connect()
    return client


# Who is connected, and what takes its right away.
CUTS = {
    "disabled": (device_by_key, lambda hub: hub.update_device_with_sas(DEVICE, "*", KEY, OTHER_KEY, "disabled")),
    "deleted": (device_by_key, lambda hub: hub.delete_device(DEVICE)),
    "re-keyed": (device_by_key, lambda hub: hub.update_device_with_sas(DEVICE, "*", THIRD_KEY, THIRD_KEY, "enabled")),
    "re-keyed by thumbprint": (
        device_by_thumbprint,
        lambda hub: hub.update_device_with_x509(DEVICE, "*", "A" * 40, "B" * 40, "enabled"),
    ),
    "module of a disabled device": (
        module_by_key,
        lambda hub: hub.update_device_with_sas(DEVICE, "*", KEY, OTHER_KEY, "disabled"),
    ),
    "module of a deleted device": (module_by_key, lambda hub: hub.delete_device(DEVICE)),
    "module re-keyed": (
        module_by_key,
        lambda hub: hub.update_module_with_sas(DEVICE, MODULE, "", "*", THIRD_KEY, THIRD_KEY),
    ),
    "module deleted": (module_by_key, lambda hub: hub.delete_module(DEVICE, MODULE)),
}


@pytest.mark.shows(**SERVICE, feature="a device or module that is disabled, deleted or re-keyed is cut off within a second")
@pytest.mark.parametrize("transport", ["mqtt", "mqtt-ws"])
@pytest.mark.parametrize("case", CUTS)
def test_an_identity_is_cut_off_when_its_right_is_gone(muster, tmp_path, case, transport):
    make_client, take_away = CUTS[case]
    registry = registry_of(muster)
    client = make_client(muster, tmp_path, transport)
    told = queue.Queue()
    client.on_twin_desired_properties_patch_received = told.put

    def change(value: int):
        """Changes the twin, if there still is one."""
        twin = Twin(properties=TwinProperties(desired={"value": value}))
        with suppress(HttpOperationError):
            if "module" in case:
                registry.update_module_twin(DEVICE, MODULE, twin)
            else:
                registry.update_twin(DEVICE, twin)

    change(1)
    assert told.get(timeout=20)["value"] == 1, "the subscription was granted"
    cut = gone(client)
    take_away(registry)
    assert cut.wait(CUT_OFF_S), muster.log
    change(2)
    # It tries to come back, with the subscription that it was granted.
    assert muster.log.wait_for("a connection was refused")
    client.shutdown()
    assert told.empty()
    assert muster.log.wait_for("a connection was ended"), muster.log
