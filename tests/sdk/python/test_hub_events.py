"""What a hub tells of by itself: twins, identities, connections and digital twins, in the log that telemetry is in."""

from datetime import UTC, datetime

import pytest
from azure.iot.hub import DigitalTwinClient
from azure.iot.hub.models import Twin, TwinProperties
from test_event_hubs import READER, TRANSPORTS, quick_turns, read  # noqa: F401
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


def read_as(muster, kinds: list[str], transport: str) -> list[tuple]:
    """Operation, module and body of events of these kinds, read by Azure's client, once each says what all of them say."""
    told(muster, len(kinds))
    hub, found = muster.hub["name"], []
    for kind, event in zip(kinds, read(muster, len(kinds), transport), strict=True):
        properties = {name.decode(): value.decode() for name, value in event.properties.items()}
        assert (properties["hubName"], properties["deviceId"]) == (hub, "dev-1")
        assert properties["iothub-message-schema"] == f"{kind}Notification"
        assert datetime.fromisoformat(properties["operationTimestamp"]) <= datetime.now(UTC)
        said, module = event.system_properties, properties.get("moduleId")
        assert said[b"iothub-message-source"] == f"{kind}Events".encode()
        assert said[b"iothub-connection-device-id"] == b"dev-1"
        assert said.get(b"iothub-connection-module-id") == (module and module.encode())
        assert b"iothub-connection-auth-method" not in said and b"iothub-enqueuedtime" in said
        raw = event.raw_amqp_message.properties
        assert (raw.content_type, raw.content_encoding, raw.user_id) == (b"application/json", b"utf-8", hub.encode())
        found.append((properties["opType"], module, event.body_as_json()))
    return found


@pytest.mark.shows(**READER, feature="twin-change events of devices and modules")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_changes_of_twins_are_read_at_the_event_hub(muster, transport):
    registry = registry_of(muster)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    registry.create_module_with_sas("dev-1", "mod-1", "", KEY, OTHER_KEY)
    route(muster, "TwinChangeEvents")
    registry.update_twin("dev-1", Twin(tags={"place": "cave"}, properties=TwinProperties(desired={"a": 1})))
    registry.update_module_twin("dev-1", "mod-1", Twin(properties=TwinProperties(desired={"b": 2})))
    registry.replace_twin("dev-1", Twin(tags={}, properties=TwinProperties(desired={"c": 3})))
    updated, module, replaced = read_as(muster, ["twinChange"] * 3, transport)
    assert updated[:2] == ("updateTwin", None)
    assert (updated[2]["tags"], updated[2]["properties"]["desired"]["a"]) == ({"place": "cave"}, 1)
    assert "reported" not in updated[2]["properties"]
    assert (module[:2], module[2]["properties"]["desired"]["b"]) == (("updateTwin", "mod-1"), 2)
    assert replaced[:2] == ("replaceTwin", None)
    assert (replaced[2]["deviceId"], replaced[2]["tags"], replaced[2]["properties"]["desired"]["c"]) == ("dev-1", {}, 3)


@pytest.mark.shows(**READER, feature="lifecycle and connection events of devices and modules")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_devices_that_come_and_go_are_read_at_the_event_hub(muster, transport):
    route(muster, "DeviceLifecycleEvents", "DeviceConnectionStateEvents")
    registry = registry_of(muster)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    registry.create_module_with_sas("dev-1", "mod-1", "", KEY, OTHER_KEY)
    connect(muster, "dev-1", KEY).shutdown()
    told(muster, 4)
    registry.delete_module("dev-1", "mod-1")
    registry.delete_device("dev-1")
    born, joined, online, offline, left, dead = read_as(
        muster, ["deviceLifecycle"] * 2 + ["deviceConnectionState"] * 2 + ["deviceLifecycle"] * 2, transport
    )
    assert [event[:2] for event in (born, joined)] == [("createDeviceIdentity", None), ("createDeviceIdentity", "mod-1")]
    assert [event[:2] for event in (online, offline)] == [("deviceConnected", None), ("deviceDisconnected", None)]
    assert [event[:2] for event in (left, dead)] == [("deleteDeviceIdentity", "mod-1"), ("deleteDeviceIdentity", None)]
    assert born[2]["deviceId"] == dead[2]["deviceId"] == "dev-1" and joined[2]["moduleId"] == "mod-1"
    assert born[2]["properties"]["desired"]["$version"] == 1
    assert online[2].keys() == offline[2].keys() == {"sequenceNumber"}
    assert int(online[2]["sequenceNumber"], 16) < int(offline[2]["sequenceNumber"], 16)


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
