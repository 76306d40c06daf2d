"""The way from a hub's own address to its event hub, as Azure's command line goes it to monitor events.

Its versions up to 0.25 go it by uamqp, later ones by what azure-eventhub stands on itself: each in just these calls
(`contract/eventhub-endpoint.md 8`). The command line can be given no CA; where the client takes one, it is given here.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from urllib.parse import quote

import pytest
import uamqp
from azure.core.credentials import AccessToken
from azure.eventhub._pyamqp import ReceiveClient
from azure.eventhub._pyamqp.authentication import _CBSAuth
from azure.eventhub._pyamqp.error import AMQPLinkRedirect
from azure.iot.hub.sastoken import SasToken
from test_event_hubs import POLL_S, Reader, bodies, quick_turns  # noqa: F401
from test_events import events
from test_hub import connect, create

AMQP = {"transport": "amqp"}
UAMQP = {"client": "uamqp", "version": version("uamqp"), **AMQP, "credential": "policy"}
READER = {"client": "azure-eventhub", "version": version("azure-eventhub"), **AMQP, "credential": "hub policy"}
FEATURE = "redirect from the hub to its event hub, every partition read from a time on"
PARTITIONS = ["0", "1", "2", "3"]
DEVICES = [f"dev-{number}" for number in range(12)]
POLICY = "iothubowner"
TOKEN_S = 360
WAIT_S = 30
WAIT_MS = WAIT_S * 1000


def key_of(muster, policy: str = POLICY) -> str:
    return muster.command("policy", "show", policy, "--hub", muster.hub["name"], "--show-keys")["primaryKey"]


@pytest.fixture
def told_since(muster):
    """A time before which every device has sent, and what each has sent since, by partition."""
    clients = {name: connect(muster, name, create(muster, name)) for name in DEVICES}
    for name, client in clients.items():
        client.send_message(f"{name} before")
    before = events(muster, "--from", "start", "--count", str(len(DEVICES)))
    latest = max(datetime.fromisoformat(event["enqueuedTime"]) for event in before)
    while datetime.now(UTC) < latest + timedelta(milliseconds=1):
        pass
    sent = {partition: [] for partition in PARTITIONS}
    for event in before:
        name = event["deviceId"]
        clients[name].send_message(f"{name} since")
        clients[name].shutdown()
        sent[str(event["partition"])].append(f"{name} since")
    assert all(sent.values()), "some partition is nobody's"
    return latest, sent


class Monitor:
    """What Azure's command line knows of a hub before it asks."""

    def __init__(self, muster, policy: str = POLICY):
        self.host, self.policy, self.key = muster.hub["hostName"], policy, key_of(muster, policy)

    async def redirect(self) -> uamqp.errors.LinkRedirect:
        """Where the hub's own address leads; user and password stand in the address that is dialled."""
        token = quote(str(SasToken(self.host, self.key, self.policy, TOKEN_S)), safe="")
        user = quote(f"{self.policy}@sas.root.{self.host.split('.')[0]}", safe="")
        source = uamqp.address.Source(f"amqps://{user}:{token}@{self.host}/messages/events/$management")
        client = uamqp.ReceiveClientAsync(source, timeout=WAIT_MS, prefetch=1)
        try:
            await client.open_async()
            with pytest.raises(uamqp.errors.LinkRedirect) as redirected:
                await client.receive_message_batch_async(max_batch_size=1)
            return redirected.value
        finally:
            await client.close_async()

    def credential(self, place: str) -> uamqp.authentication.SASTokenAsync:
        return uamqp.authentication.SASTokenAsync.from_shared_access_key(place, self.policy, self.key)

    async def describe(self, address: str, name: str, place: str) -> dict:
        """What the event hub says that it holds."""
        client = uamqp.ReceiveClientAsync(uamqp.address.Source(address), auth=self.credential(place), timeout=WAIT_MS)
        try:
            await client.open_async()
            answer = await client.mgmt_request_async(
                uamqp.Message(application_properties={"name": name}),
                b"READ",
                op_type=b"com.microsoft:eventhub",
                status_code_field=b"status-code",
                description_fields=b"status-description",
                timeout=WAIT_MS,
            )
            return answer.get_data()
        finally:
            await client.close_async()


async def read(connection, auth, address: str, since: datetime, count: int) -> list[str]:
    """So many messages of a partition, sent after a time."""
    source = uamqp.address.Source(address)
    source.set_filter(f"amqp.annotation.x-opt-enqueuedtimeutc > {milliseconds(since)}".encode())
    client = uamqp.ReceiveClientAsync(source, auth=auth, timeout=0, prefetch=0)
    await client.open_async(connection=connection)
    try:
        messages = client.receive_messages_iter_async()
        return [b"".join((await anext(messages)).get_data()).decode() for _ in range(count)]
    finally:
        await client.close_async()


def milliseconds(at: datetime) -> int:
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)


@pytest.mark.shows(**UAMQP, feature=FEATURE)
def test_a_monitor_by_uamqp_is_led_to_the_event_hub_and_reads_all_of_it(muster, told_since):
    since, sent = told_since
    monitor = Monitor(muster)

    async def watch() -> dict:
        redirect = await monitor.redirect()
        host, address = redirect.hostname.decode(), redirect.address.decode()
        name = address.replace("amqps://", "").split("/")[1]
        assert (host, address) == (monitor.host, f"amqps://{host}:5671/{muster.hub['name']}/$management")
        place = f"sb://{host}/{name}"
        held = await monitor.describe(address, name, place)
        partitions = [partition.decode() for partition in held[b"partition_ids"]]
        assert (partitions, held[b"partition_count"]) == (PARTITIONS, len(PARTITIONS))
        auth = monitor.credential(place)
        async with uamqp.ConnectionAsync(host, sasl=auth, container_id="monitor") as connection:
            base = f"amqps://{host}/{name}/ConsumerGroups/$Default/Partitions"
            reading = [read(connection, auth, f"{base}/{one}", since, len(sent[one])) for one in partitions]
            return dict(zip(partitions, await asyncio.wait_for(asyncio.gather(*reading), WAIT_S), strict=True))

    assert asyncio.run(watch()) == sent


@pytest.mark.shows(**UAMQP, feature="redirect from the hub: refused without the right")
def test_a_policy_without_the_right_is_led_nowhere(muster):
    with pytest.raises(uamqp.errors.LinkDetach) as refused:
        asyncio.run(Monitor(muster, "registryRead").redirect())
    assert refused.value.condition == uamqp.constants.ErrorCodes.UnauthorizedAccess


@pytest.mark.shows(**READER, feature=FEATURE)
def test_a_monitor_by_azure_eventhub_is_led_to_the_event_hub_and_reads_all_of_it(muster, told_since):
    since, sent = told_since
    host, key = muster.hub["hostName"], key_of(muster)
    source = f"amqps://{host}/messages/events/$management"
    auth = _CBSAuth(
        uri=source,
        audience=host,
        token_type=b"servicebus.windows.net:sastoken",
        get_token=lambda: AccessToken(str(SasToken(host, key, POLICY, TOKEN_S)), int(time.time()) + TOKEN_S),
        expires_in=TOKEN_S,
    )
    told = {"connection_verify": muster.endpoints["caFile"], "socket_timeout": POLL_S}
    client = ReceiveClient(hostname=host, source=source, auth=auth, timeout=WAIT_S, prefetch=1, **told)
    try:
        with pytest.raises(AMQPLinkRedirect) as redirected:
            client.open()
            client.receive_message_batch(max_batch_size=1, timeout=WAIT_S)
    finally:
        client.close()
    place, address = redirected.value.hostname, redirected.value.address
    name = address.replace("amqps://", "").split("/")[1]
    assert (place, name) == (host, muster.hub["name"])
    text = f"Endpoint=sb://{place}/;SharedAccessKeyName={POLICY};SharedAccessKey={key};EntityPath={name}"
    begin = {"changed": {"conn_str": text}, "starting_position": since}
    readers = {partition: Reader(muster, partition_id=partition, **begin) for partition in PARTITIONS}
    try:
        assert {partition: bodies(readers[partition].take(len(sent[partition]))) for partition in PARTITIONS} == sent
    finally:
        with ThreadPoolExecutor() as ending:
            assert list(ending.map(Reader.end, readers.values())) == [[]] * len(PARTITIONS)
