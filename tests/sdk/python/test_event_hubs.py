"""azure-eventhub reads at a hub's Event Hubs-compatible endpoint what azure-iot-device sent to it."""

import asyncio
import base64
import json
import queue
import ssl
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from urllib.request import Request, urlopen

import pytest
from azure.core.rest import HttpRequest
from azure.eventhub import EventHubConsumerClient, TransportType
from azure.eventhub.aio import EventHubConsumerClient as AsyncConsumerClient
from azure.eventhub.exceptions import AuthenticationError, EventHubError
from azure.iot.device import Message
from peer import annotated, binary, signature
from test_hub import connect, create, enter
from test_management import GROUP, management_of
from test_proton import as_device

READER = {"client": "azure-eventhub", "version": version("azure-eventhub"), "credential": "hub policy"}
TRANSPORTS = ["amqp", "amqp-ws"]
WAIT_S = 30
BEGINNING = "-1"
# How long these clients wait for one frame before they look again whether they were closed; otherwise up to a second.
POLL_S = 0.05
TURN_S = 0.0001


@pytest.fixture(autouse=True)
def quick_turns():
    """Has threads take turns often: until it has its partitions, this client spins, and lets none of its others read."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(TURN_S)
    yield
    sys.setswitchinterval(usual)


def told(muster, transport: str, **changed) -> dict:
    """What every reader is told."""
    return {
        "conn_str": muster.hub["eventHubConnectionString"],
        "consumer_group": "$Default",
        "connection_verify": muster.endpoints["caFile"],
        "transport_type": TransportType.AmqpOverWebsocket if transport == "amqp-ws" else TransportType.Amqp,
        "retry_backoff_factor": 0.1,
        "socket_timeout": POLL_S,
        "load_balancing_interval": POLL_S,
        **changed,
    }


class Reader:
    """A client that reads in the background, and what it was given."""

    def __init__(self, muster, transport: str = "amqp", changed: dict | None = None, **position):
        self.client = EventHubConsumerClient.from_connection_string(**told(muster, transport, **(changed or {})))
        self.events, self.errors = queue.Queue(), queue.Queue()
        position.setdefault("starting_position", BEGINNING)
        self.thread = threading.Thread(target=self.run, kwargs=position)
        self.thread.start()

    def run(self, **position):
        # pylint: disable=broad-except
        try:
            self.client.receive(
                lambda _, event: self.events.put(event),
                on_error=lambda _, error: self.errors.put(error),
                **position,
            )
        except Exception as error:
            self.errors.put(error)

    def take(self, count: int) -> list:
        """The next events; fails if they do not come."""
        return [self.events.get(timeout=WAIT_S) for _ in range(count)]

    def end(self) -> list:
        """Ends it, and gives what came beyond what was taken."""
        self.client.close()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        return list(self.events.queue)


def read(muster, count: int, transport: str = "amqp", **position) -> list:
    """So many events of the first partition that holds some, and not one more that was there already."""
    # This client reads several partitions by turns, and waits for each that is empty.
    position["partition_id"] = position.get("partition_id") or filled(muster)
    reader = Reader(muster, transport, **position)
    try:
        return reader.take(count)
    finally:
        assert reader.end() == []


def bodies(events: list) -> list[str]:
    return [event.body_as_str() for event in events]


def send(muster, name: str, texts: list[str], key: str | None = None):
    """Has a device send."""
    client = connect(muster, name, key or create(muster, name))
    for text in texts:
        client.send_message(text)
    client.shutdown()


def filled(muster) -> str:
    """The first partition that holds something."""
    consumer = EventHubConsumerClient.from_connection_string(**told(muster, "amqp"))
    with consumer:
        held = [consumer.get_partition_properties(partition) for partition in consumer.get_partition_ids()]
    return next(one["id"] for one in held if not one["is_empty"])


@pytest.mark.shows(**READER, feature="what the event hub and its partitions hold")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_endpoint_tells_what_it_holds(muster, transport):
    send(muster, "dev-1", ["a", "b", "c"])
    partition = filled(muster)
    consumer = EventHubConsumerClient.from_connection_string(**told(muster, transport))
    with consumer:
        hub = consumer.get_eventhub_properties()
        assert hub["eventhub_name"] == "hub" and hub["partition_ids"] == ["0", "1", "2", "3"]
        assert hub["created_at"].year >= 2026
        for number in hub["partition_ids"]:
            held = consumer.get_partition_properties(number)
            is_full = number == partition
            assert (held["eventhub_name"], held["id"], held["is_empty"]) == ("hub", number, not is_full)
            assert held["beginning_sequence_number"] == 0
            assert held["last_enqueued_sequence_number"] == (2 if is_full else -1)
            assert (held["last_enqueued_offset"] == "-1") == (not is_full)
            assert (held["last_enqueued_time_utc"].year == 1) == (not is_full)


@pytest.mark.shows(**READER, feature="telemetry with body, properties and annotations")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_reader_gets_all_that_was_said_of_a_message(muster, transport):
    client = connect(muster, "dev-1", create(muster, "dev-1"))
    message = Message(json.dumps({"temperature": 50.123}), message_id="m-1", content_encoding="utf-8")
    message.content_type = "application/json"
    message.correlation_id = "c/1"
    message.user_id = "u"
    message.custom_properties["alert"] = "no & yes/maybe"
    message.custom_properties["ünï"] = "ç=d"
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    client.send_message(message)
    client.shutdown()
    (event,) = read(muster, 1, transport)
    assert event.body_as_json() == {"temperature": 50.123}
    assert {name.decode(): value.decode() for name, value in event.properties.items()} == {
        "alert": "no & yes/maybe",
        "ünï": "ç=d",
    }
    assert (event.message_id, event.correlation_id) == ("m-1", "c/1")
    raw = event.raw_amqp_message
    assert (raw.properties.content_type, raw.properties.content_encoding) == (b"application/json", b"utf-8")
    assert (raw.properties.user_id, raw.properties.to) == (b"u", b"/devices/dev-1/messages/events")
    assert (event.sequence_number, event.offset, event.partition_key) == (0, "0", None)
    assert before <= event.enqueued_time <= datetime.now(UTC)
    said = dict(event.system_properties)
    assert said[b"iothub-connection-device-id"] == b"dev-1"
    assert json.loads(said[b"iothub-connection-auth-method"]) == {
        "scope": "device",
        "type": "sas",
        "issuer": "iothub",
        "acceptingIpFilterRule": None,
    }
    assert said[b"iothub-connection-auth-generation-id"].isdigit()
    assert said[b"iothub-message-source"] == b"Telemetry"
    assert said[b"iothub-enqueuedtime"] == said[b"x-opt-enqueued-time"]
    assert b"iothub-connection-module-id" not in said


# What devices say beside their own properties: as a topic has it, as AMQP and HTTPS have it, and as readers are told.
MEANT = [
    ("$.ctime", "iothub-creation-time-utc", "iothub-creationtimeutc", "2024-01-31T12:00:00.0000000Z"),
    ("$.schema", "iothub-message-schema", "iothub-messageschema", "schema/1"),
    ("$.on", "iothub-outputname", None, "out"),
    ("$.sub", "dt-subject", "dt-subject", "thermostat1"),
    ("$.ifid", "iothub-interface-id", "iothub-interface-id", "urn:azureiot:Security:SecurityAgent:1"),
    ("$.diagid", "Diagnostic-Id", None, "0af7651916cd43dd"),
    ("$.diagctx", "Correlation-Context", None, "creationtimeutc=noon"),
]
AS_PROPERTIES = {"iothub-creation-time-utc", "iothub-message-schema", "iothub-outputname"}


def over_mqtt(muster, key: str):
    client = connect(muster, "dev-1", key)
    message = Message("over MQTT")
    message.custom_properties.update({"own": "x", **{short: value for short, _, _, value in MEANT}})
    client.send_message(message)
    client.shutdown()


def over_amqp(muster, key: str):
    said = {name: value for _, name, _, value in MEANT if name in AS_PROPERTIES}
    annotations = annotated(**{name: value for _, name, _, value in MEANT if name not in AS_PROPERTIES})
    with as_device(muster, "CBS", key) as peer:
        telemetry = peer.sender("/devices/dev-1/messages/events")
        telemetry.send(binary("over AMQP", annotations=annotations, properties={"own": "x", **said}))


def over_https(muster, key: str):
    host = muster.hub["hostName"]
    headers = {header: value for _, _, header, value in MEANT if header}
    headers["Authorization"] = signature(f"{host}/devices/dev-1", base64.b64decode(key))
    url = f"https://{host}/devices/dev-1/messages/events?api-version=2021-04-12"
    request = Request(url, b"over HTTPS", {"iothub-app-own": "x", **headers})
    with urlopen(request, context=ssl.create_default_context(cafile=muster.endpoints["caFile"])) as answer:
        assert answer.status == 204


@pytest.mark.shows(**READER, transport="amqp", feature="what devices say of time, schema, output, component and trace, however sent")
def test_a_reader_gets_what_has_a_name_of_the_hub(muster):
    key = create(muster, "dev-1")
    for send_over in [over_mqtt, over_amqp, over_https]:
        send_over(muster, key)
    events = read(muster, 3)
    assert bodies(events) == ["over MQTT", "over AMQP", "over HTTPS"]
    for event in events:
        by_https = event.body_as_str() == "over HTTPS"
        meant = {name: value for _, name, header, value in MEANT if header or not by_https}
        properties = {name.decode(): value.decode() for name, value in event.properties.items()}
        assert properties == {"own": "x", **{name: meant[name] for name in meant.keys() & AS_PROPERTIES}}
        said = {name.decode(): value for name, value in event.raw_amqp_message.annotations.items()}
        annotations = set(meant) - AS_PROPERTIES | {"iothub-creation-time-utc"}
        assert {name: said[name].decode() for name in annotations} == {name: meant[name] for name in annotations}
        assert not said.keys() & {"iothub-message-schema", "iothub-outputname"}


@pytest.mark.shows(**READER, transport="amqp", feature="by what a device with a certificate was let in")
def test_a_reader_gets_by_what_a_certificate_was_let_in(muster, tmp_path):
    client = enter(muster, "dev-1", "X.509", tmp_path, "mqtt")
    client.send_message("a")
    client.shutdown()
    (event,) = read(muster, 1)
    assert json.loads(event.system_properties[b"iothub-connection-auth-method"]) == {
        "scope": "device",
        "type": "x509",
        "issuer": "iothub",
        "acceptingIpFilterRule": None,
    }


@pytest.mark.shows(**READER, feature="every place to begin at, itself included or not")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_reader_begins_where_it_asks_to(muster, transport):
    texts = [f"message {number}" for number in range(10)]
    send(muster, "dev-1", texts)
    partition = filled(muster)
    events = read(muster, 10, transport)
    assert bodies(events) == texts
    assert [event.sequence_number for event in events] == list(range(10))
    offsets = [int(event.offset) for event in events]
    assert offsets == sorted(set(offsets))

    third = events[3]
    # Several may have come in one millisecond: all of them are behind it, or none.
    late = [event for event in events if event.enqueued_time > third.enqueued_time]
    early = [event for event in events if event.enqueued_time >= third.enqueued_time]
    hour_ago = events[0].enqueued_time - timedelta(hours=1)
    cases = [(place, False, texts[4:]) for place in (third.sequence_number, third.offset)]
    cases += [(place, True, texts[3:]) for place in (third.sequence_number, third.offset)]
    cases += [(third.enqueued_time, False, bodies(late)), (third.enqueued_time, True, bodies(early))]
    cases.append((hour_ago, False, texts))

    def after(case) -> list[str]:
        place, inclusive, expected = case
        position = {"starting_position": place, "starting_position_inclusive": inclusive, "partition_id": partition}
        return bodies(read(muster, len(expected), transport, **position))

    with ThreadPoolExecutor(len(cases)) as at_once:
        assert list(at_once.map(after, cases)) == [expected for _, _, expected in cases]


@pytest.mark.shows(**READER, transport="amqp", feature="from here on: what comes later, and nothing that was there")
@pytest.mark.parametrize("place", ["@latest", 1_000_000, "1000000"])
def test_a_reader_at_the_end_gets_what_comes_later(muster, place):
    key = create(muster, "dev-1")
    send(muster, "dev-1", ["before"], key)
    partition = filled(muster)
    reader = Reader(muster, starting_position=place, partition_id=partition, track_last_enqueued_event_properties=True)
    assert muster.log.wait_for("a reader of telemetry was let in"), muster.log
    client = connect(muster, "dev-1", key)
    for number in range(300):
        client.send_message(str(number))
    client.shutdown()
    events = reader.take(300)
    assert bodies(events) == [str(number) for number in range(300)]
    assert reader.end() == []


@pytest.mark.shows(**READER, feature="reads on after a restart of the server: nothing is lost, nothing repeated")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_reader_reads_on_after_a_restart(muster, transport):
    client = connect(muster, "dev-1", create(muster, "dev-1"))
    for number in range(50):
        client.send_message(str(number))
    reader = Reader(muster, transport, partition_id=filled(muster))
    assert bodies(reader.take(50)) == [str(number) for number in range(50)]
    muster.restart()
    for number in range(50, 100):
        client.send_message(str(number))
    assert bodies(reader.take(50)) == [str(number) for number in range(50, 100)]
    assert reader.end() == []
    client.shutdown()
    again = read(muster, 100, transport)
    assert [event.sequence_number for event in again] == list(range(100))


@pytest.mark.shows(**READER, transport="amqp", feature="epochs: the higher one takes a partition over, a lower one is refused")
def test_the_higher_epoch_takes_a_partition_over(muster):
    send(muster, "dev-1", ["a"])
    partition = filled(muster)
    weak = Reader(muster, partition_id=partition, owner_level=1)
    weak.take(1)
    strong = Reader(muster, partition_id=partition, owner_level=2)
    strong.take(1)
    assert "amqp:link:stolen" in str(weak.errors.get(timeout=WAIT_S))
    late = Reader(muster, partition_id=partition, owner_level=1)
    refused = str(late.errors.get(timeout=WAIT_S))
    assert "amqp:link:stolen" in refused and "epoch 2" in refused
    for reader in [weak, late, strong]:
        assert reader.end() == []


@pytest.mark.shows(**READER, transport="amqp", feature="a wrong key, a policy without the right and a wrong name are refused in words")
def test_whoever_may_not_read_is_refused_in_words(muster):
    right = muster.hub["eventHubConnectionString"]
    policies = {policy["keyName"]: policy for policy in muster.command("policy", "list", "--hub", "hub", "--show-keys")}
    device = right.replace("iothubowner", "device").replace(
        right.split("SharedAccessKey=")[1].split(";")[0], policies["device"]["primaryKey"]
    )
    cases = [
        (right.replace("SharedAccessKey=", "SharedAccessKey=AAAA"), AuthenticationError, "Unauthorized"),
        (right.replace("iothubowner", "nobody"), AuthenticationError, "Unauthorized"),
        (device, EventHubError, "does not allow this"),
        (right.replace("EntityPath=hub", "EntityPath=other"), EventHubError, "no event hub of this name"),
    ]
    for text, kind, words in cases:
        consumer = EventHubConsumerClient.from_connection_string(**told(muster, "amqp", conn_str=text, retry_total=0))
        with consumer, pytest.raises(kind) as refused:
            consumer.get_eventhub_properties()
        assert words in str(refused.value), text
    consumer = EventHubConsumerClient.from_connection_string(**told(muster, "amqp", retry_total=0))
    with consumer, pytest.raises(EventHubError) as refused:
        consumer.get_partition_properties("4")
    assert "from 0 to 3" in str(refused.value)


@pytest.mark.shows(**READER, feature="the asynchronous client: several partitions, from the beginning")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_asynchronous_client_reads_all_partitions(muster, transport):
    names = [f"dev-{number}" for number in range(6)]
    for name in names:
        send(muster, name, [f"{name} {number}" for number in range(20)])

    async def gather() -> list:
        events, done = [], asyncio.Event()

        async def take(_, event):
            events.append(event)
            if len(events) == 20 * len(names):
                done.set()

        consumer = AsyncConsumerClient.from_connection_string(**told(muster, transport))
        async with consumer:
            reading = asyncio.create_task(consumer.receive(take, starting_position=BEGINNING))
            await asyncio.wait_for(done.wait(), WAIT_S)
        await reading
        return events

    shown = bodies(asyncio.run(gather()))
    for name in names:
        assert [text for text in shown if text.startswith(f"{name} ")] == [f"{name} {number}" for number in range(20)]


@pytest.mark.shows(**READER, transport="amqp", feature="consumer groups: made, listed and removed as resources, each with readers of its own")
def test_consumer_groups_have_readers_of_their_own(muster):
    send(muster, "dev-1", ["a"])
    partition = filled(muster)
    client = management_of(muster)
    hub = f"/subscriptions/{muster.endpoints['admin']['subscriptionId']}/resourceGroups/{GROUP}/providers/Microsoft.Devices"
    hub += "/IotHubs/hub/eventHubEndpoints/events/ConsumerGroups"

    def ask(method: str, name: str = ""):
        path = f"{hub}/{name}".rstrip("/")
        return client.send_request(HttpRequest(method, path, params={"api-version": "2023-06-30"}))

    made = ask("PUT", "audit")
    assert made.status_code == 200 and made.json()["name"] == "audit"
    assert ask("GET", "Audit").json()["id"] == f"{hub}/audit"
    assert [group["name"] for group in ask("GET").json()["value"]] == ["$Default", "audit"]
    readers = [
        Reader(muster, changed={"consumer_group": group}, partition_id=partition, owner_level=7)
        for group in ["$Default", "audit"]
    ]
    assert [bodies(reader.take(1)) for reader in readers] == [["a"], ["a"]]
    muster.restart()
    assert [group["name"] for group in ask("GET").json()["value"]] == ["$Default", "audit"]
    assert ask("DELETE", "$Default").status_code == 400
    assert ask("DELETE", "audit").status_code == 200
    assert ask("GET", "audit").status_code == 404 and ask("DELETE", "audit").status_code == 204
    for reader in readers:
        assert reader.end() == []
    client.close()
