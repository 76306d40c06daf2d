"""azure-iot-device receives cloud-to-device messages; azure-iot-hub reads what became of them and empties a queue."""

import asyncio
import queue
import threading
import time
from datetime import datetime, timedelta, timezone
from importlib.metadata import version

import pytest
from azure.iot.device.aio import IoTHubDeviceClient
from azure.iot.hub import IoTHubHttpRuntimeManager, IoTHubRegistryManager
from msrest.exceptions import HttpOperationError
from test_hub import CREDENTIALS, DEVICE, TRANSPORTS, at_hub, connect, create, enter

SERVICE = {"client": "azure-iot-hub", "version": version("azure-iot-hub"), "transport": "https"}
WAIT_S = 30
BACK_S = 60


def listen(client) -> queue.Queue:
    """Where the messages of a client arrive; setting the handler subscribes, and returns when that is granted."""
    arrived = queue.Queue()
    client.on_message_received = arrived.put
    return arrived


def send(muster, name: str, text: str, *options: str) -> str:
    """Sends a message and returns its ID."""
    return muster.command("message", "send", name, text, *options)["messageId"]


def texts(arrived: queue.Queue, count: int) -> list:
    """The bodies of the next messages."""
    return [arrived.get(timeout=WAIT_S).data.decode() for _ in range(count)]


def waiting(muster, name: str) -> int:
    """How many messages the hub says that it has for a device."""
    return muster.command("device", "show", name)["cloudToDeviceMessageCount"]


def awaited_feedback(muster, count: int) -> dict:
    """What became of messages, by their IDs, once there is feedback on so many; PUBACKs come when they come."""
    told, until = {}, time.monotonic() + WAIT_S
    while time.monotonic() < until:
        for record in muster.command("message", "feedback"):
            told[record["originalMessageId"]] = record["statusCode"]
        if len(told) >= count:
            return told
    raise AssertionError(f"feedback on {count} messages, not only on {told}")


@pytest.mark.shows(**DEVICE, feature="cloud-to-device: properties, order, feedback")
@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_messages_arrive_with_all_their_properties_in_order(muster, tmp_path, transport, credential):
    client = enter(muster, "dev-1", credential, tmp_path, transport)
    arrived = listen(client)
    expiry = (datetime.now(timezone.utc) + timedelta(minutes=10)).strftime("%Y-%m-%dT%H:%M:%SZ")
    options = ["--correlation-id", "c 1", "--user-id", "u&1", "--content-type", "application/json"]
    options += ["--content-encoding", "utf-8", "--ack", "full", "--message-id", "m/1", "--expires-at", expiry]
    properties = {"plain": "value", "odd & key": "v/ä +=%", "number": "1"}
    options += [word for name, value in properties.items() for word in ("--property", f"{name}={value}")]
    assert send(muster, "dev-1", '{"é": 1}', *options) == "m/1"
    message = arrived.get(timeout=WAIT_S)
    assert message.data == '{"é": 1}'.encode()
    assert message.custom_properties == properties
    assert (message.message_id, message.correlation_id, message.user_id) == ("m/1", "c 1", "u&1")
    assert (message.content_type, message.content_encoding, message.ack) == ("application/json", "utf-8", "full")
    assert message.expiry_time_utc == expiry.replace("Z", ".0000000Z")
    assert awaited_feedback(muster, 1) == {"m/1": "Success"}
    for number in range(20):
        send(muster, "dev-1", str(number))
    assert texts(arrived, 20) == [str(number) for number in range(20)]
    client.shutdown()


@pytest.mark.shows(**DEVICE, credential="symmetric key", feature="cloud-to-device: messages queued over a restart")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_messages_wait_for_a_device_that_is_away_also_over_a_restart(muster, transport):
    key = create(muster, "dev-1")
    for number in range(6):
        send(muster, "dev-1", str(number), "--ack", "positive", "--message-id", str(number))
    assert waiting(muster, "dev-1") == 6
    muster.restart()
    assert waiting(muster, "dev-1") == 6
    client = connect(muster, "dev-1", key, transport)
    assert texts(listen(client), 6) == [str(number) for number in range(6)]
    assert awaited_feedback(muster, 6) == {str(number): "Success" for number in range(6)}
    assert waiting(muster, "dev-1") == 0
    client.shutdown()


@pytest.mark.shows(**DEVICE, credential="symmetric key", feature="cloud-to-device: after a restart, not subscribed again")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_device_that_comes_back_gets_messages_without_subscribing_again(muster, transport):
    key = create(muster, "dev-1")
    client = connect(muster, "dev-1", key, transport)
    arrived = listen(client)
    send(muster, "dev-1", "before", "--ack", "full", "--message-id", "before")
    assert texts(arrived, 1) == ["before"]
    # Until it is completed, it would rightly come again.
    assert awaited_feedback(muster, 1) == {"before": "Success"}
    back = threading.Event()
    client.on_connection_state_change = lambda: back.set() if client.connected else None
    muster.stop()
    muster.start()
    send(muster, "dev-1", "while it is away")
    assert back.wait(BACK_S), muster.log
    assert texts(arrived, 1) == ["while it is away"]
    send(muster, "dev-1", "after")
    assert texts(arrived, 1) == ["after"]
    client.shutdown()


@pytest.mark.shows(**DEVICE, transport="mqtt", credential="symmetric key", feature="cloud-to-device: receive_message")
def test_messages_are_received_by_asking_for_them(muster):
    key = create(muster, "dev-1")
    send(muster, "dev-1", "first")
    client = connect(muster, "dev-1", key)
    assert client.receive_message(timeout=WAIT_S).data == b"first"
    client.shutdown()

    async def receive() -> bytes:
        told = at_hub(muster, "dev-1", "mqtt")
        client = IoTHubDeviceClient.create_from_symmetric_key(symmetric_key=key, **told)
        await client.connect()
        message = await asyncio.wait_for(client.receive_message(), WAIT_S)
        await client.shutdown()
        return message.data

    send(muster, "dev-1", "second")
    assert asyncio.run(receive()) == b"second"


@pytest.mark.shows(**SERVICE, credential="shared access policy", feature="cloud-to-device: feedback over HTTPS")
def test_feedback_is_taken_given_back_and_completed(muster):
    manager = IoTHubHttpRuntimeManager.from_connection_string(muster.hub["connectionString"])
    create(muster, "dev-1")
    manager.receive_feedback_notification()
    past = "2020-01-01T00:00:00Z"
    send(muster, "dev-1", "late", "--ack", "negative", "--message-id", "late", "--expires-at", past)
    send(muster, "dev-1", "purged", "--ack", "full", "--message-id", "purged")
    assert muster.command("message", "purge", "dev-1")["totalMessagesPurged"] >= 1

    def take():
        # The client keeps the answer to itself; its own lower layer shows it.
        raw = manager.protocol.cloud_to_device_messages.receive_feedback_notification(raw=True).response
        return raw.headers["ETag"].strip('"'), {it["originalMessageId"]: it for it in raw.json()}

    lock, records = take()
    assert records["purged"]["statusCode"] == records["purged"]["description"] == "Purged"
    assert records["purged"]["deviceId"] == "dev-1"
    registry = IoTHubRegistryManager.from_connection_string(muster.hub["connectionString"])
    assert records["purged"]["deviceGenerationId"] == registry.get_device("dev-1").generation_id
    manager.abandon_feedback_notification(lock)
    lock, again = take()
    assert again.keys() == records.keys()
    manager.complete_feedback_notification(lock)
    with pytest.raises(HttpOperationError) as lost:
        manager.complete_feedback_notification(lock)
    assert lost.value.response.status_code == 412
    assert lost.value.response.headers["iothub-errorcode"] == "DeviceMessageLockLost"
    assert muster.command("message", "feedback") == []


@pytest.mark.shows(**SERVICE, credential="shared access policy", feature="cloud-to-device: full and purged queues")
def test_a_full_queue_takes_no_more_until_it_is_purged(muster):
    create(muster, "dev-1")
    for number in range(50):
        send(muster, "dev-1", str(number))
    refused = muster.run("message", "send", "dev-1", "one more")
    assert refused.returncode != 0 and "queue is full" in refused.stderr
    registry = IoTHubRegistryManager.from_connection_string(muster.hub["connectionString"])
    assert registry.get_device("dev-1").cloud_to_device_message_count == 50
    assert registry.get_twin("dev-1").cloud_to_device_message_count == 50
    purge = registry.protocol.cloud_to_device_messages.purge_cloud_to_device_message_queue
    purged = purge("dev-1")
    assert (purged.total_messages_purged, purged.device_id, purged.module_id) == (50, "dev-1", None)
    assert registry.get_device("dev-1").cloud_to_device_message_count == 0
    send(muster, "dev-1", "again")
