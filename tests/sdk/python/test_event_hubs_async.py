"""azure-eventhub.aio reads from every place that it can ask for, and reads on after a restart of the server."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from azure.eventhub.aio import EventHubConsumerClient
from test_event_hubs import BEGINNING, READER, TRANSPORTS, WAIT_S, bodies, filled, send, told
from test_hub import connect, create


@asynccontextmanager
async def reading(muster, transport: str, partition: str, **position):
    """Reads in the background, and gives what takes the next events; in the end there must be no more than were taken."""
    events = asyncio.Queue()

    async def keep(_, event):
        events.put_nowait(event)

    async def take(count: int) -> list:
        return [await asyncio.wait_for(events.get(), WAIT_S) for _ in range(count)]

    consumer = EventHubConsumerClient.from_connection_string(**told(muster, transport))
    task = asyncio.create_task(consumer.receive(keep, partition_id=partition, **position))
    try:
        yield take
    finally:
        await consumer.close()
        await asyncio.wait_for(task, WAIT_S)
    assert events.empty(), bodies([events.get_nowait()])


async def read(muster, transport: str, partition: str, count: int, **position) -> list:
    """So many events, and not one more that was there already."""
    async with reading(muster, transport, partition, **position) as take:
        return await take(count)


@pytest.mark.shows(**READER, feature="the asynchronous client: every place to begin at, itself included or not")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_asynchronous_client_begins_where_it_asks_to(muster, transport):
    texts = [f"message {number}" for number in range(10)]
    send(muster, "dev-1", texts)
    partition = filled(muster)

    async def compare():
        events = await read(muster, transport, partition, 10, starting_position=BEGINNING)
        assert bodies(events) == texts
        assert [event.sequence_number for event in events] == list(range(10))
        third = events[3]
        # Several may have come in one millisecond: all of them are behind it, or none.
        late = bodies([event for event in events if event.enqueued_time > third.enqueued_time])
        early = bodies([event for event in events if event.enqueued_time >= third.enqueued_time])
        cases = [
            (third.offset, False, texts[4:]),
            (third.offset, True, texts[3:]),
            (third.sequence_number, False, texts[4:]),
            (third.sequence_number, True, texts[3:]),
            (third.enqueued_time, False, late),
            (third.enqueued_time, True, early),
            (events[0].enqueued_time - timedelta(hours=1), False, texts),
        ]
        asked = [
            read(muster, transport, partition, len(expected), starting_position=place, starting_position_inclusive=inclusive)
            for place, inclusive, expected in cases
        ]
        found = [bodies(events) for events in await asyncio.gather(*asked)]
        assert found == [expected for _, _, expected in cases]

    asyncio.run(compare())


@pytest.mark.shows(**READER, feature="the asynchronous client: from here on, and nothing that was there")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_asynchronous_client_at_the_end_gets_what_comes_later(muster, transport):
    key = create(muster, "dev-1")
    send(muster, "dev-1", ["before"], key)
    partition = filled(muster)
    later = [str(number) for number in range(100)]

    async def follow():
        async with reading(muster, transport, partition, starting_position="@latest") as take:
            assert await asyncio.to_thread(muster.log.wait_for, "a reader of telemetry was let in"), muster.log
            await asyncio.to_thread(send, muster, "dev-1", later, key)
            assert bodies(await take(len(later))) == later

    asyncio.run(follow())


@pytest.mark.shows(**READER, feature="the asynchronous client: reads on after a restart, nothing lost, nothing repeated")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_asynchronous_client_reads_on_after_a_restart(muster, transport):
    client = connect(muster, "dev-1", create(muster, "dev-1"))

    def send_numbers(numbers: range):
        for number in numbers:
            client.send_message(str(number))

    send_numbers(range(50))
    partition = filled(muster)

    async def follow():
        async with reading(muster, transport, partition, starting_position=BEGINNING) as take:
            events = await take(50)
            await asyncio.to_thread(muster.restart)
            await asyncio.to_thread(send_numbers, range(50, 100))
            events += await take(50)
        assert bodies(events) == [str(number) for number in range(100)]
        assert [event.sequence_number for event in events] == list(range(100))

    asyncio.run(follow())
    client.shutdown()
