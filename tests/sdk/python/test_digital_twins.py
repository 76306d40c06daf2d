"""Digital twins: azure-iot-hub reads, patches and commands, azure-iot-device is a Plug and Play device by its conventions."""

import asyncio
import queue

import pytest
from azure.iot.hub import DigitalTwinClient
from azure.iot.hub.models import QuerySpecification
from msrest.exceptions import HttpOperationError
from test_devices import FORMS, done
from test_hub import DEVICE, TRANSPORTS, at_hub, connect
from test_methods import WITHIN_S, answering
from test_operators import KEY, OTHER_KEY, SERVICE, registry_of

CONTROLLER = "dtmi:com:example:TemperatureController;2"
THERMOSTAT = "dtmi:com:example:Thermostat;1"
PLUG_AND_PLAY = {**DEVICE, "credential": "symmetric key"}


def twins_of(muster) -> DigitalTwinClient:
    return DigitalTwinClient.from_connection_string(muster.hub["connectionString"])


def controller(muster, transport: str = "mqtt"):
    """A temperature controller that is connected and announces its model."""
    registry_of(muster).create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    return connect(muster, "dev-1", KEY, transport, product_info=CONTROLLER)


def model_of(muster, *module) -> str:
    return muster.command("twin", "show", "dev-1", *module)["modelId"]


@pytest.mark.shows(**PLUG_AND_PLAY, feature="Plug and Play: a model announced, kept, queried; properties and components")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_device_and_its_digital_twin_agree(muster, transport):
    client = controller(muster, transport)
    told = queue.Queue()
    client.on_twin_desired_properties_patch_received = told.put
    client.patch_twin_reported_properties(
        {"serialNumber": "alwinexlepaho8329", "thermostat1": {"__t": "c", "maxTempSinceLastReboot": 25.3}}
    )
    twins = twins_of(muster)
    shown = twins.get_digital_twin("dev-1")
    assert (shown["$dtId"], shown["$metadata"]["$model"]) == ("dev-1", CONTROLLER)
    assert shown["serialNumber"] == "alwinexlepaho8329"
    assert shown["thermostat1"]["maxTempSinceLastReboot"] == 25.3
    patch = [{"op": "add", "path": "/thermostat1/targetTemperature", "value": 21.4}]
    twins.update_digital_twin("dev-1", patch)
    wanted = {"thermostat1": {"__t": "c", "targetTemperature": 21.4}, "$version": 2}
    # The client reads the twin too whenever it has connected, and tells of that first.
    while (heard := told.get(timeout=WITHIN_S)) != wanted:
        assert heard["$version"] == 1, heard
    answer = {"value": 21.4, "ac": 200, "av": heard["$version"], "ad": "done"}
    client.patch_twin_reported_properties({"thermostat1": {"__t": "c", "targetTemperature": answer}})
    thermostat = twins.get_digital_twin("dev-1")["thermostat1"]
    assert thermostat["targetTemperature"] == 21.4
    state = thermostat["$metadata"]["targetTemperature"]
    assert state.pop("lastUpdateTime")
    assert state == {
        "desiredValue": 21.4,
        "desiredVersion": 2,
        "ackVersion": 2,
        "ackCode": 200,
        "ackDescription": "done",
    }
    found = registry_of(muster).query_iot_hub(QuerySpecification(query=f"SELECT * FROM devices WHERE modelId = '{CONTROLLER}'"))
    assert [twin.device_id for twin in found.items] == ["dev-1"]
    client.shutdown()
    assert model_of(muster) == CONTROLLER


@pytest.mark.shows(**PLUG_AND_PLAY, transport="mqtt", feature="Plug and Play: devices and modules announce their models")
@pytest.mark.parametrize("form", FORMS)
def test_every_connection_announces_its_model(muster, form):
    registry = registry_of(muster)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    registry.create_module_with_sas("dev-1", "mod-1", "", KEY, OTHER_KEY)
    told = at_hub(muster, "dev-1", "mqtt")
    text = f"HostName={told['hostname']};DeviceId=dev-1;ModuleId=mod-1;SharedAccessKey={KEY}"

    async def run():
        make = FORMS[form].IoTHubDeviceClient.create_from_symmetric_key
        device = make(symmetric_key=KEY, product_info=CONTROLLER, **told)
        await done(device.connect())
        make = FORMS[form].IoTHubModuleClient.create_from_connection_string
        module = make(text, server_verification_cert=muster.authority, product_info=THERMOSTAT)
        await done(module.connect())
        assert model_of(muster) == CONTROLLER
        assert registry.get_module_twin("dev-1", "mod-1").additional_properties["modelId"] == THERMOSTAT
        await done(module.shutdown())
        await done(device.shutdown())

    asyncio.run(run())
    assert muster.command("device", "show", "dev-1")["modelId"] == CONTROLLER
    connect(muster, "dev-1", KEY, product_info="dtmi:com:example:TemperatureController;3").shutdown()
    assert model_of(muster) == "dtmi:com:example:TemperatureController;3"


@pytest.mark.shows(**PLUG_AND_PLAY, transport="mqtt", feature="Plug and Play: what is no model is refused")
def test_a_device_that_announces_no_model_by_its_name_is_refused(muster):
    registry_of(muster).create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    with pytest.raises(Exception, match="(?i)not authorized|credential|connection"):
        connect(muster, "dev-1", KEY, product_info="dtmi:com:example:Thermostat", connection_retry=False)
    assert muster.log.wait_for("a connection was refused for the model it announced")
    assert model_of(muster) == ""


@pytest.mark.shows(**SERVICE, feature="digital twins: properties and components added, replaced and removed")
def test_a_patch_wants_exactly_what_it_names(muster):
    registry = registry_of(muster)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    twins = twins_of(muster)

    def wanted() -> dict:
        desired = registry.get_twin("dev-1").properties.desired
        return {name: value for name, value in desired.items() if not name.startswith("$")}

    def patch(op: str, path: str, *value):
        twins.update_digital_twin("dev-1", [{"op": op, "path": path, **({"value": value[0]} if value else {})}])

    patch("add", "/fanSpeed", 2.0)
    patch("add", "/thermostat1", {"targetTemperature": 21.4, "mode": {"eco": True, "step": 1}, "$metadata": {}})
    assert wanted() == {
        "fanSpeed": 2.0,
        "thermostat1": {"__t": "c", "targetTemperature": 21.4, "mode": {"eco": True, "step": 1}},
    }
    patch("replace", "/thermostat1/mode", {"step": 2})
    patch("replace", "/thermostat1/targetTemperature", 22)
    patch("remove", "/fanSpeed")
    assert wanted() == {"thermostat1": {"__t": "c", "targetTemperature": 22, "mode": {"step": 2}}}
    patch("replace", "/thermostat1", {"other": 1, "$metadata": {}})
    assert wanted() == {"thermostat1": {"__t": "c", "other": 1}}
    patch("remove", "/thermostat1/other")
    assert wanted() == {}
    version = registry.get_twin("dev-1").properties.desired["$version"]
    patch("remove", "/thermostat1")
    assert registry.get_twin("dev-1").properties.desired["$version"] == version


@pytest.mark.shows(**SERVICE, feature="digital twins: etags, unknown devices, what is no patch")
def test_a_patch_that_may_not_be_changes_nothing(muster):
    registry = registry_of(muster)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    twins = twins_of(muster)
    raw = twins.protocol.digital_twin.get_digital_twin("dev-1", raw=True)
    etag = raw.headers["ETag"]
    speed = [{"op": "add", "path": "/fanSpeed", "value": 1}]
    accepted = twins.protocol.digital_twin.update_digital_twin("dev-1", speed, etag, raw=True)
    assert accepted.headers["Location"].endswith("/digitaltwins/dev%2D1")
    assert accepted.headers["ETag"] != etag
    for patch, stale, status in [
        (speed, etag, 412),
        ([{"op": "move", "path": "/fanSpeed", "from": "/a"}], None, 400),
        ([{"op": "add", "path": "/fanSpeed/a", "value": 1}], None, 400),
        ([{"op": "add", "path": "/list", "value": [1]}], None, 400),
        ([{"op": "replace", "path": "/$metadata/$model", "value": THERMOSTAT}], None, 400),
    ]:
        with pytest.raises(HttpOperationError) as raised:
            twins.update_digital_twin("dev-1", patch, stale)
        assert raised.value.response.status_code == status, patch
    assert twins.get_digital_twin("dev-1")["$metadata"]["fanSpeed"] == {"desiredValue": 1, "desiredVersion": 2}
    for call in [twins.get_digital_twin, lambda name: twins.update_digital_twin(name, speed)]:
        with pytest.raises(HttpOperationError) as raised:
            call("dev-2")
        assert raised.value.response.headers["iothub-errorcode"] == "DeviceNotFound"


@pytest.mark.shows(**PLUG_AND_PLAY, feature="Plug and Play: commands of the device and of its components")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_device_carries_out_commands(muster, transport):
    client = controller(muster, transport)
    received = answering(client, lambda request: (202 if request.name == "reboot" else 200, {"said": request.payload}))
    twins = twins_of(muster)
    # The client does not tell when it listens: the command waits for it.
    assert twins.invoke_command("dev-1", "reboot", 5, WITHIN_S, 30) == {"said": 5}
    since = "2020-07-17T06:11:04Z"
    raw = twins.protocol.digital_twin.invoke_component_command("dev-1", "thermostat1", "getMaxMinReport", since, raw=True)
    assert raw.output == {"said": since}
    assert raw.headers["x-ms-command-statuscode"] == 200 and len(raw.headers["x-ms-request-id"]) == 36
    assert twins.invoke_component_command("dev-1", "thermostat1", "getMaxMinReport", {"since": since}) == {
        "said": {"since": since}
    }
    names = [received.get(timeout=WITHIN_S).name for _ in range(3)]
    assert names == ["reboot", "thermostat1*getMaxMinReport", "thermostat1*getMaxMinReport"]
    client.shutdown()


@pytest.mark.shows(**SERVICE, feature="commands: offline, unknown, out of range")
def test_callers_of_commands_hear_why_nothing_comes_back(muster):
    registry_of(muster).create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    twins = twins_of(muster)
    for call, status, code in [
        (lambda: twins.invoke_command("dev-1", "reboot", ""), 404, "DeviceNotOnline"),
        (lambda: twins.invoke_component_command("dev-1", "c", "reboot", ""), 404, "DeviceNotOnline"),
        (lambda: twins.invoke_command("dev-2", "reboot", ""), 404, "DeviceNotFound"),
        (lambda: twins.invoke_command("dev-1", "reboot", "", 0, 4), 400, "ArgumentInvalid"),
        (lambda: twins.invoke_command("dev-1", "re boot", ""), 400, "ArgumentInvalid"),
    ]:
        with pytest.raises(HttpOperationError) as raised:
            call()
        response = raised.value.response
        assert (response.status_code, response.headers["iothub-errorcode"]) == (status, code)
