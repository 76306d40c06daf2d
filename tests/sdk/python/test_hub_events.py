"""What a hub tells of by itself: twins, identities, connections and digital twins, in the log that telemetry is in."""

import pytest
from azure.iot.hub import DigitalTwinClient
from azure.iot.hub.models import Twin, TwinProperties
from test_events import events
from test_hub import connect
from test_operators import KEY, OTHER_KEY, SERVICE, registry_of

MODEL = "dtmi:com:example:Thermostat;1"


def route(muster, *sources: str):
    """Has the hub tell of what is of these sources, in the place of what it told of before."""
    hub = muster.hub["name"]
    for present in muster.command("route", "list", "--hub", hub):
        if present["source"] != "DeviceMessages":
            muster.command("route", "delete", present["name"], "--hub", hub)
    for source in sources:
        muster.command("route", "create", source, "--hub", hub, "--source", source, "--endpoint", "events")


def told(muster, count: int) -> list[dict]:
    """What the hub has told of, when it is as much as `count`, telemetry left out."""
    found = events(muster, "--from", "start", "--count", str(count))
    return [event for event in found if event["annotations"]["iothub-message-source"] != "Telemetry"]


def operations(found: list[dict]) -> list[str]:
    return [event["properties"]["opType"] for event in found]


@pytest.mark.shows(**SERVICE, feature="twin-change events: desired, tags, reported, replaced; devices and modules")
def test_changes_of_twins_are_told_of(muster):
    registry = registry_of(muster)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    registry.create_module_with_sas("dev-1", "mod-1", "", KEY, OTHER_KEY)
    route(muster, "TwinChangeEvents")
    client = connect(muster, "dev-1", KEY)
    registry.update_twin("dev-1", Twin(tags={"place": "cave"}, properties=TwinProperties(desired={"a": {"b": 1}})))
    client.patch_twin_reported_properties({"c": 2})
    registry.update_module_twin("dev-1", "mod-1", Twin(properties=TwinProperties(desired={"d": 3})))
    registry.replace_twin("dev-1", Twin(tags={}, properties=TwinProperties(desired={"e": 4})))
    client.shutdown()
    updated, reported, module, replaced = told(muster, 4)
    assert operations([updated, reported, module, replaced]) == ["updateTwin"] * 3 + ["replaceTwin"]
    assert updated["annotations"]["iothub-message-source"] == "twinChangeEvents"
    assert updated["annotations"]["iothub-connection-device-id"] == "dev-1"
    assert "iothub-connection-auth-method" not in updated["annotations"]
    properties = updated["properties"]
    assert properties["hubName"] == updated["systemProperties"]["userId"] == muster.hub["name"]
    assert (properties["deviceId"], properties["iothub-message-schema"]) == ("dev-1", "twinChangeNotification")
    assert len(properties["operationTimestamp"]) == len("2020-07-17T06:11:04.9309159Z")
    system = updated["systemProperties"]
    assert (system["contentType"], system["contentEncoding"]) == ("application/json", "utf-8")
    desired = updated["body"]["properties"]["desired"]
    assert (updated["body"]["tags"], desired["a"], desired["$version"]) == ({"place": "cave"}, {"b": 1}, 2)
    assert desired["$metadata"]["a"]["b"]["$lastUpdatedVersion"] == 2
    assert reported["body"]["properties"] == {
        "reported": {"c": 2, "$metadata": reported["body"]["properties"]["reported"]["$metadata"], "$version": 2}
    }
    assert (module["properties"]["moduleId"], module["moduleId"]) == ("mod-1", "mod-1")
    body = replaced["body"]
    assert (body["deviceId"], body["tags"], body["properties"]["desired"]["e"]) == ("dev-1", {}, 4)
    assert body["properties"]["reported"]["c"] == 2


@pytest.mark.shows(**SERVICE, feature="lifecycle and connection events, in order, across a restart")
def test_devices_are_told_of_as_they_come_and_go(muster):
    route(muster, "DeviceLifecycleEvents", "DeviceConnectionStateEvents")
    registry = registry_of(muster)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    first = connect(muster, "dev-1", KEY)
    first.send_message("telemetry")
    first.shutdown()
    muster.restart()
    registry = registry_of(muster)
    second = connect(muster, "dev-1", KEY)
    second.shutdown()
    registry.delete_device("dev-1")
    found = told(muster, 7)
    assert operations(found) == [
        "createDeviceIdentity",
        "deviceConnected",
        "deviceDisconnected",
        "deviceConnected",
        "deviceDisconnected",
        "deleteDeviceIdentity",
    ]
    sources = [event["annotations"]["iothub-message-source"] for event in found]
    assert set(sources) == {"deviceLifecycleEvents", "deviceConnectionStateEvents"}
    created, deleted = found[0]["body"], found[-1]["body"]
    assert created["deviceId"] == deleted["deviceId"] == "dev-1"
    assert created["properties"]["desired"]["$version"] == 1
    numbers = [event["body"]["sequenceNumber"] for event in found[1:-1]]
    assert numbers == sorted(set(numbers)) and all(len(number) == 64 for number in numbers)


@pytest.mark.shows(**SERVICE, feature="digital-twin change events")
def test_changes_of_digital_twins_are_told_of(muster):
    registry = registry_of(muster)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    route(muster, "DigitalTwinChangeEvents")
    client = connect(muster, "dev-1", KEY, product_info=MODEL)
    twins = DigitalTwinClient.from_connection_string(muster.hub["connectionString"])
    twins.update_digital_twin("dev-1", [{"op": "add", "path": "/targetTemperature", "value": 21.8}])
    client.patch_twin_reported_properties({"targetTemperature": {"value": 21.8, "ac": 200, "av": 2, "ad": "done"}})
    client.shutdown()
    found = told(muster, 3)
    assert {event["systemProperties"]["contentType"] for event in found} == {"application/json-patch+json"}
    assert {event["annotations"]["iothub-message-source"] for event in found} == {"digitalTwinChangeEvents"}
    announced, wanted, reported = [event["body"] for event in found]
    assert announced == [{"op": "replace", "path": "/$metadata/$model", "value": MODEL}]
    state = {"desiredValue": 21.8, "desiredVersion": 2}
    assert wanted == [{"op": "add", "path": "/$metadata/targetTemperature", "value": state}]
    changes = {operation["path"]: (operation["op"], operation["value"]) for operation in reported}
    assert changes.pop("/$metadata/targetTemperature/lastUpdateTime")[0] == "add"
    assert changes == {
        "/targetTemperature": ("add", 21.8),
        "/$metadata/targetTemperature/ackVersion": ("add", 2),
        "/$metadata/targetTemperature/ackCode": ("add", 200),
        "/$metadata/targetTemperature/ackDescription": ("add", "done"),
    }


@pytest.mark.shows(**SERVICE, feature="events only where a hub's routes ask for them")
def test_a_hub_tells_of_nothing_unless_it_is_asked_to(muster):
    registry = registry_of(muster)
    route(muster, "DeviceLifecycleEvents")
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    route(muster)
    client = connect(muster, "dev-1", KEY)
    client.patch_twin_reported_properties({"a": 1})
    client.shutdown()
    registry.delete_device("dev-1")
    route(muster, "DeviceLifecycleEvents")
    registry.create_device_with_sas("dev-2", KEY, OTHER_KEY, "enabled")
    found = told(muster, 2)
    assert sorted(event["deviceId"] for event in found) == ["dev-1", "dev-2"]
