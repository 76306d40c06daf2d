"""Direct methods: azure-iot-hub calls, azure-iot-device answers, and callers hear when nobody does."""

import asyncio
import json
import queue
import threading
import time

import pytest
from azure.iot.device import MethodResponse, aio
from azure.iot.hub.models import CloudToDeviceMethod
from msrest.exceptions import HttpOperationError
from test_devices import FORMS, done
from test_hub import CREDENTIALS, DEVICE, TRANSPORTS, at_hub, connect, enter
from test_operators import KEY, OTHER_KEY, SERVICE, registry_of

PAYLOAD_BYTES_MAX = 128 * 1024
WITHIN_S = 20
# Far below the shortest time-out of a call.
AT_ONCE_S = 3


def call(name: str, payload=None, response_s: int = 30, connect_s: int = 0) -> CloudToDeviceMethod:
    return CloudToDeviceMethod(
        method_name=name,
        payload=payload,
        response_timeout_in_seconds=response_s,
        connect_timeout_in_seconds=connect_s,
    )


def refused(invoke) -> tuple:
    """The status, the code in the header and what the body says of a call that failed."""
    with pytest.raises(HttpOperationError) as raised:
        invoke()
    response = raised.value.response
    return response.status_code, response.headers["iothub-errorcode"], response.json()


def answering(client, answer):
    """Has `answer` make the response to each request that the client receives; returns the requests."""
    received = queue.Queue()

    def on_request(request):
        received.put(request)
        status, payload = answer(request)
        client.send_method_response(MethodResponse.create_from_method_request(request, status, payload))

    client.on_method_request_received = on_request
    return received


def device_of(muster, transport: str = "mqtt"):
    """A registry, and a device that is connected."""
    registry = registry_of(muster)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    return registry, connect(muster, "dev-1", KEY, transport)


@pytest.mark.shows(**DEVICE, feature="direct methods: status and payload both ways")
@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_device_answers_with_a_status_and_a_payload_of_its_own(muster, tmp_path, transport, credential):
    registry, client = registry_of(muster), enter(muster, "dev-1", credential, tmp_path, transport)
    answers = {"echo": lambda said: (200, said), "fail": lambda said: (-500, {"why": said}), "void": lambda _: (204, None)}
    received = answering(client, lambda request: answers[request.name](request.payload))
    said = {"b": 1.5, "a": [None, True, "é\n"], "big": 4503599627370495}
    # The client does not tell when it listens: the call waits for it.
    heard = registry.invoke_device_method("dev-1", call("echo", said, connect_s=WITHIN_S))
    assert (heard.status, heard.payload) == (200, said)
    request = received.get(timeout=WITHIN_S)
    assert (request.name, request.payload) == ("echo", said)
    heard = registry.invoke_device_method("dev-1", call("fail", [1]))
    assert (heard.status, heard.payload) == (-500, {"why": [1]})
    answers["thermostat1*echo"] = answers["echo"]
    assert registry.invoke_device_method("dev-1", call("thermostat1*echo", 2)).payload == 2
    heard = registry.invoke_device_method("dev-1", call("void"))
    assert (heard.status, heard.payload) == (204, None)
    client.shutdown()


@pytest.mark.shows(**DEVICE, transport="mqtt", credential="symmetric key", feature="direct methods: received one by one")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["device", "module"])
def test_requests_are_received_one_by_one(muster, form, kind):
    registry = registry_of(muster)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    told = {"symmetric_key": KEY, **at_hub(muster, "dev-1", "mqtt")}
    if kind == "module":
        registry.create_module_with_sas("dev-1", "mod-1", "", KEY, OTHER_KEY)
        text = f"HostName={told['hostname']};DeviceId=dev-1;ModuleId=mod-1;SharedAccessKey={KEY}"
        make = FORMS[form].IoTHubModuleClient.create_from_connection_string
        client = make(text, server_verification_cert=muster.authority)
        invoke = lambda method: registry.invoke_device_module_method("dev-1", "mod-1", method)  # noqa: E731
    else:
        client = FORMS[form].IoTHubDeviceClient.create_from_symmetric_key(**told)
        invoke = lambda method: registry.invoke_device_method("dev-1", method)  # noqa: E731

    # Of any name: the client has no place for one name before it has subscribed, and passes over what comes at once.
    async def receive():
        if FORMS[form] is aio:
            return await client.receive_method_request()
        return await asyncio.to_thread(client.receive_method_request, timeout=WITHIN_S)

    async def run():
        await done(client.connect())
        calling = asyncio.ensure_future(asyncio.to_thread(invoke, call("reboot", {"delay": 5}, connect_s=WITHIN_S)))
        request = await receive()
        assert (request.name, request.payload) == ("reboot", {"delay": 5})
        response = MethodResponse.create_from_method_request(request, 202, "soon")
        await done(client.send_method_response(response))
        heard = await calling
        assert (heard.status, heard.payload) == (202, "soon")
        await done(client.shutdown())

    asyncio.run(run())


@pytest.mark.shows(**SERVICE, feature="direct methods: offline, unknown, silent, out of range")
def test_callers_hear_why_nothing_comes_back(muster):
    registry, client = device_of(muster)
    status, code, body = refused(lambda: registry.invoke_device_method("dev-1", call("reboot")))
    inner = json.loads(body["Message"])
    assert (status, code, inner["errorCode"]) == (404, "DeviceNotOnline", 404103)
    assert (inner["message"], inner["info"]) == ("Timed out waiting for device to connect.", {"timeout": "00:00:00"})
    began_at = time.monotonic()
    refused(lambda: registry.invoke_device_method("dev-1", call("reboot", connect_s=1)))
    assert time.monotonic() - began_at > 1

    status, code, body = refused(lambda: registry.invoke_device_method("dev-2", call("reboot")))
    assert (status, code) == (404, "DeviceNotFound") and body["Message"].startswith("ErrorCode:DeviceNotFound;")
    status, code, _ = refused(lambda: registry.invoke_device_module_method("dev-1", "mod-1", call("reboot")))
    assert (status, code) == (404, "DeviceNotFound")

    received = queue.Queue()
    client.on_method_request_received = received.put
    status, code, body = refused(lambda: registry.invoke_device_method("dev-1", call("sleep", response_s=5, connect_s=20)))
    inner = json.loads(body["Message"])
    assert (status, code, inner["errorCode"]) == (504, "GatewayTimeout", 504101)
    assert (inner["message"], inner["info"]) == ("Timed out waiting for the response from device.", {"timeout": "00:00:05"})
    # What comes late is dropped, and does no harm to the next call.
    late = received.get(timeout=WITHIN_S)
    client.send_method_response(MethodResponse.create_from_method_request(late, 200, "late"))
    answering(client, lambda _: (200, "in time"))
    assert registry.invoke_device_method("dev-1", call("again")).payload == "in time"

    for method, told in [
        (call("m", response_s=4), "responseTimeoutInSeconds must be within [5; 300]."),
        (call("m", response_s=301), "responseTimeoutInSeconds must be within [5; 300]."),
        (call("m", connect_s=301), "connectTimeoutInSeconds must be within [0; 300]."),
    ]:
        status, code, body = refused(lambda method=method: registry.invoke_device_method("dev-1", method))
        assert (status, code, body["Message"]) == (400, "ArgumentInvalid", f"ErrorCode:ArgumentInvalid;{told}")
    client.shutdown()


@pytest.mark.shows(**DEVICE, transport="mqtt", credential="symmetric key", feature="direct methods: 128 KiB both ways")
def test_payloads_of_the_greatest_size_pass_both_ways(muster):
    registry, client = device_of(muster)
    answering(client, lambda request: (200, request.payload))
    longest = "x" * (PAYLOAD_BYTES_MAX - 2)
    assert registry.invoke_device_method("dev-1", call("echo", longest, connect_s=WITHIN_S)).payload == longest
    status, code, _ = refused(lambda: registry.invoke_device_method("dev-1", call("echo", longest + "x")))
    assert (status, code) == (413, "MessageTooLarge")
    answering(client, lambda request: (200, longest + "x"))
    status, code, body = refused(lambda: registry.invoke_device_method("dev-1", call("boast")))
    assert (status, code) == (504, "GatewayTimeout")
    assert "131073 bytes" in json.loads(body["Message"])["message"]
    client.shutdown()


@pytest.mark.shows(**DEVICE, credential="symmetric key", feature="direct methods: gone in the middle")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_device_that_disconnects_in_the_middle_ends_the_call(muster, transport):
    registry, client = device_of(muster, transport)
    left_at = queue.Queue()

    def leave(_):
        left_at.put(time.monotonic())
        # The client waits for its handlers to end before it disconnects.
        threading.Thread(target=client.disconnect).start()

    client.on_method_request_received = leave
    status, code, body = refused(lambda: registry.invoke_device_method("dev-1", call("reboot", connect_s=WITHIN_S)))
    assert time.monotonic() - left_at.get(timeout=WITHIN_S) < AT_ONCE_S
    assert (status, code, json.loads(body["Message"])["errorCode"]) == (504, "GatewayTimeout", 504101)
    assert left_at.empty(), "the device was called once"
    client.shutdown()


@pytest.mark.shows(**DEVICE, credential="symmetric key", feature="direct methods: after a restart without subscribing")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_device_is_called_after_a_restart_without_subscribing_again(muster, transport):
    registry, client = device_of(muster, transport)
    answering(client, lambda request: (200, request.payload))
    assert registry.invoke_device_method("dev-1", call("echo", 1, connect_s=WITHIN_S)).payload == 1
    muster.restart()
    # This client never subscribes twice: the request can only reach it because the hub remembered.
    registry = registry_of(muster)
    assert registry.invoke_device_method("dev-1", call("echo", 2, connect_s=60)).payload == 2
    client.shutdown()


@pytest.mark.shows(**DEVICE, transport="mqtt", credential="symmetric key", feature="direct methods: by the command line")
def test_the_command_line_calls_a_device(muster):
    _, client = device_of(muster)
    received = answering(client, lambda request: (201, {"heard": request.payload}))
    command = ["method", "invoke", "dev-1", "echo", "--payload", '{"a": 1}', "--connect-timeout", "20", "--timeout", "10"]
    assert muster.command(*command) == {"status": 201, "payload": {"heard": {"a": 1}}}
    assert received.get(timeout=WITHIN_S).name == "echo"
    client.shutdown()
    gone = muster.run("method", "invoke", "dev-1", "echo", "--timeout", "5")
    assert (gone.returncode, "Timed out waiting for device to connect." in gone.stderr) == (3, True), gone.stderr
