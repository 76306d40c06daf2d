"""azure-iot-hub finds twins in the query language, page by page."""

import pytest
from azure.iot.hub.models import ExportImportDevice, QuerySpecification, Twin
from msrest.exceptions import HttpOperationError
from test_hub import connect
from test_operators import KEY, OTHER_KEY, SERVICE, registry_of


@pytest.fixture(name="registry")
def registry_with_devices(muster):
    """A hub with seven devices: at even numbers in the north, at odd ones in the south."""
    registry = registry_of(muster)
    devices = [
        ExportImportDevice(
            id=f"dev-{number}",
            import_mode="create",
            status="enabled",
            tags={"side": "south" if number % 2 else "north", "number": number},
        )
        for number in range(7)
    ]
    assert registry.bulk_create_or_update_devices(devices).is_successful is True
    return registry


def found(registry, text: str) -> list:
    answer = registry.query_iot_hub(QuerySpecification(query=text))
    assert (answer.type, answer.continuation_token) == ("Twin", None)
    return [twin.device_id for twin in answer.items]


@pytest.mark.shows(**SERVICE, feature="queries: conditions on tags, properties, names and states")
def test_twins_are_found_by_their_conditions(registry):
    assert found(registry, "select * from devices where tags.side = 'south'") == ["dev-1", "dev-3", "dev-5"]
    assert found(registry, "SELECT * FROM devices WHERE tags.number >= 2 AND NOT tags.number IN [3, 4, 5]") == [
        "dev-2",
        "dev-6",
    ]
    assert found(registry, "SELECT * FROM devices WHERE devices.deviceId = 'dev-4'") == ["dev-4"]
    assert found(registry, "SELECT TOP 2 * FROM devices WHERE status = 'enabled'") == ["dev-0", "dev-1"]
    assert found(registry, "SELECT * FROM devices WHERE is_defined(properties.reported.temperature)") == []
    registry.create_module_with_sas("dev-1", "part", "", KEY, OTHER_KEY)
    registry.update_module_twin("dev-1", "part", Twin(tags={"side": "inside"}), "*")
    answer = registry.query_iot_hub(QuerySpecification(query="SELECT * FROM devices.modules WHERE tags.side = 'inside'"))
    assert [(twin.device_id, twin.module_id) for twin in answer.items] == [("dev-1", "part")]


@pytest.mark.shows(**SERVICE, feature="queries: OR, text functions and whether something is defined")
def test_twins_are_found_by_alternatives_by_parts_of_text_and_by_what_is_defined(registry):
    registry.update_twin("dev-1", Twin(tags={"heated": False}), "*")
    cases = [
        ("tags.number = 0 OR tags.number = 5", ["dev-0", "dev-5"]),
        ("tags.number = 5 OR tags.side = 'west'", ["dev-5"]),
        ("tags.side = 'west' OR tags.number = 7", []),
        # AND binds first.
        ("tags.number = 1 OR tags.side = 'north' AND tags.number > 3", ["dev-1", "dev-4", "dev-6"]),
        ("(tags.number = 1 OR tags.side = 'north') AND tags.number > 3", ["dev-4", "dev-6"]),
        ("STARTSWITH(tags.side, 'sou')", ["dev-1", "dev-3", "dev-5"]),
        ("startswith(tags.side, 'outh')", []),
        ("ENDSWITH(deviceId, '-4')", ["dev-4"]),
        ("endswith(deviceId, '4-')", []),
        ("CONTAINS(tags.side, 'ort')", ["dev-0", "dev-2", "dev-4", "dev-6"]),
        ("contains(tags.side, 'ORT')", []),
        ("NOT STARTSWITH(tags.side, 'north') AND ENDSWITH(deviceId, '3')", ["dev-3"]),
        ("IS_DEFINED(tags.heated)", ["dev-1"]),
        ("is_defined(tags.cooled)", []),
        ("NOT IS_DEFINED(tags.heated) AND tags.side = 'south'", ["dev-3", "dev-5"]),
        ("NOT IS_DEFINED(tags.number)", []),
    ]
    for condition, expected in cases:
        assert found(registry, f"SELECT * FROM devices WHERE {condition}") == expected, condition


@pytest.mark.shows(**SERVICE, feature="queries: pages of a chosen size, and on from a continuation token")
def test_an_answer_comes_in_pages(registry):
    pages, token = [], None
    while True:
        query = QuerySpecification(query="SELECT * FROM devices WHERE tags.side = 'north'")
        answer = registry.query_iot_hub(query, continuation_token=token, max_item_count="3")
        pages.append([twin.device_id for twin in answer.items])
        token = answer.continuation_token
        if token is None:
            break
    assert pages == [["dev-0", "dev-2", "dev-4"], ["dev-6"]]


@pytest.mark.shows(**SERVICE, feature="queries: what a device reports and whether it is connected, at once")
def test_what_a_device_does_is_found_at_once(muster, registry):
    key = registry.get_device("dev-3").authentication.symmetric_key.primary_key
    client = connect(muster, "dev-3", key)
    client.patch_twin_reported_properties({"temperature": 21.5, "fan": {"on": True}})
    hot = "SELECT * FROM devices WHERE properties.reported.temperature > 21 AND properties.reported.fan.on = true"
    assert found(registry, hot) == ["dev-3"]
    assert found(registry, "SELECT * FROM devices WHERE connectionState = 'Connected'") == ["dev-3"]
    client.shutdown()


@pytest.mark.shows(**SERVICE, feature="queries: what is not understood is refused with the place")
def test_what_is_no_query_is_refused_with_the_place(registry):
    with pytest.raises(HttpOperationError) as raised:
        registry.query_iot_hub(QuerySpecification(query="SELECT * FROM devices WHERE tags.side == 'x'"))
    assert raised.value.response.status_code == 400
    assert "at character 40" in raised.value.response.text
