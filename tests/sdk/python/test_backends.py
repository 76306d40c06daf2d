"""azure-iot-hub sends to devices over AMQP and AMQP over WebSockets; uamqp reads feedback as Azure's command line does."""

import json
import time
from importlib.metadata import version

import pytest
import uamqp
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.sastoken import SasToken
from test_cloud_to_device import WAIT_S, listen
from test_hub import connect, create

SERVICE = {"client": "azure-iot-hub", "version": version("azure-iot-hub"), "credential": "policy"}
UAMQP = {"client": "uamqp", "version": version("uamqp"), "transport": "amqp", "credential": "policy"}
TRANSPORTS = {"amqp": uamqp.TransportType.Amqp, "amqp-ws": uamqp.TransportType.AmqpOverWebsocket}
FEEDBACK = "application/vnd.microsoft.iothub.feedback.json"


@pytest.fixture
def registry_over(muster):
    """Makes clients that send over a transport, and closes them."""
    made = []

    def registry(transport: str) -> IoTHubRegistryManager:
        made.append(IoTHubRegistryManager.from_connection_string(muster.hub["connectionString"], TRANSPORTS[transport]))
        return made[-1]

    yield registry
    for client in made:
        client.amqp_svc_client.disconnect_sync()


@pytest.mark.shows(**SERVICE, feature="cloud-to-device: send, properties, order")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_messages_are_sent_with_their_properties_in_order(muster, registry_over, transport):
    client = connect(muster, "dev-1", create(muster, "dev-1"))
    arrived = listen(client)
    registry = registry_over(transport)
    system = {"messageId": "m 1", "correlationId": "c", "contentType": "text/plain", "contentEncoding": "utf-8"}
    expiry = {"expiryTimeUtc": int((time.time() + 600) * 1000)}
    registry.send_c2d_message("dev-1", "hellö", {**system, **expiry, "plain": "value", "iothub-ack": "full"})
    message = arrived.get(timeout=WAIT_S)
    assert message.data == "hellö".encode()
    assert (message.message_id, message.correlation_id) == ("m 1", "c")
    assert (message.content_type, message.content_encoding) == ("text/plain", "utf-8")
    assert (message.custom_properties, message.ack) == ({"plain": "value"}, "full")
    for number in range(20):
        registry.send_c2d_message("dev-1", str(number))
    assert [arrived.get(timeout=WAIT_S).data.decode() for _ in range(20)] == [str(number) for number in range(20)]
    client.shutdown()


@pytest.mark.shows(**SERVICE, feature="cloud-to-device: refused (unknown device)")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_message_to_nobody_is_refused(registry_over, transport):
    # This client says that a message was refused, and not why.
    with pytest.raises(Exception, match="C2D message send failure"):
        registry_over(transport).send_c2d_message("nobody", "hello")


@pytest.fixture
def reader_of(muster):
    """Makes links that read feedback by a policy, as Azure's command line attaches them, and closes them."""
    made = []

    def reader(policy: str) -> uamqp.ReceiveClient:
        hub = muster.hub
        shown = muster.command("policy", "show", policy, "--hub", hub["name"], "--show-keys")
        host = hub["hostName"]
        user = f"{policy}@sas.root.{host.split('.')[0]}"
        token = str(SasToken(host, shown["primaryKey"], policy))
        auth = uamqp.authentication.SASLPlain(host, user, token)
        source = f"amqps://{host}:5671/messages/servicebound/feedback"
        made.append(uamqp.ReceiveClient(source, auth=auth, auto_complete=False, timeout=WAIT_S * 1000))
        return made[-1]

    yield reader
    for client in made:
        client.close()


def message_ids(batch: uamqp.Message) -> list:
    records = json.loads(b"".join(batch.get_data()))
    return [record["originalMessageId"] for record in records]


def purge(muster, *message_ids: str):
    """Has feedback on messages, without a device."""
    for message_id in message_ids:
        muster.command("message", "send", "dev-1", "purged", "--ack", "full", "--message-id", message_id)
    muster.command("message", "purge", "dev-1")


@pytest.mark.shows(**UAMQP, feature="feedback: SASL PLAIN, accept, release, reject")
def test_feedback_is_read_and_settled(muster, reader_of):
    create(muster, "dev-1")
    purge(muster, "m1", "m2")
    reader = reader_of("service")

    def next_batch() -> uamqp.Message:
        return reader.receive_message_batch(max_batch_size=1, timeout=WAIT_S * 1000)[0]

    released = next_batch()
    assert released.properties.content_type.decode() == FEEDBACK
    assert released.properties.user_id.decode() == muster.hub["name"]
    assert released.annotations[b"iothub-enqueuedtime"] > (time.time() - WAIT_S) * 1000
    assert message_ids(released) == ["m1", "m2"]
    released.release()
    again = next_batch()
    assert message_ids(again) == ["m1", "m2"]
    again.accept()
    purge(muster, "m3")
    rejected = next_batch()
    assert message_ids(rejected) == ["m3"]
    rejected.reject()
    purge(muster, "m4")
    assert message_ids(next_batch()) == ["m4"]
    # What it leaves unsettled is free as soon as it is gone.
    reader.close()
    other = reader_of("iothubowner")
    assert message_ids(other.receive_message_batch(max_batch_size=1, timeout=WAIT_S * 1000)[0]) == ["m4"]


@pytest.mark.shows(**UAMQP, feature="feedback: refused without the right")
def test_a_policy_without_the_right_reads_nothing(reader_of):
    with pytest.raises(uamqp.errors.LinkDetach) as refused:
        reader_of("registryRead").receive_message_batch(max_batch_size=1, timeout=WAIT_S * 1000)
    assert refused.value.condition == uamqp.constants.ErrorCodes.UnauthorizedAccess
