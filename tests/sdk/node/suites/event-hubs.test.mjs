// @azure/event-hubs reads at a hub's Event Hubs-compatible endpoint what azure-iot-device sent to it.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { setTimeout as passed } from 'node:timers/promises';
import { EventHubConsumerClient, earliestEventPosition, latestEventPosition } from '@azure/event-hubs';
import device from 'azure-iot-device';
import WebSocket from 'ws';
import { connect, create, untilTold } from '../devices.mjs';
import { check, client } from '../muster.mjs';
import { within } from '../process.mjs';

const READER = { ...client('@azure/event-hubs'), credential: 'hub policy' };
const OPTIONS = { amqp: {}, 'amqp-ws': { webSocketOptions: { webSocket: WebSocket } } };
const RETRIES = { maxRetries: 20, retryDelayInMs: 100, maxRetryDelayInMs: 500 };
const GROUP = '$Default';
const COUNT = 50;
const NUMBERS = Array.from({ length: COUNT }, (_, index) => index);
const READ_MS = 30_000;
const BEAT_MS = 1;

function consumer(muster, transport, text = muster.hub.eventHubConnectionString, group = GROUP) {
  const reader = new EventHubConsumerClient(group, text, { ...OPTIONS[transport], retryOptions: RETRIES });
  muster.closing(() => reader.close());
  return reader;
}

/** Keeps what a subscription is given. Each has a client of its own, which takes no second one for a partition. */
class Given {
  events = [];
  errors = [];
  /** What is known of the partition's last event, if that is asked for. */
  last;
  #heard = new EventEmitter();

  constructor(muster, transport, options, partition) {
    const reader = consumer(muster, transport);
    const handlers = {
      processEvents: async (events, context) => {
        this.events.push(...events);
        this.last = context.lastEnqueuedEventProperties ?? this.last;
        this.#heard.emit('something');
      },
      processError: async (error) => {
        this.errors.push(error);
        this.#heard.emit('something');
      },
    };
    const all = { startPosition: earliestEventPosition, maxBatchSize: 100, maxWaitTimeInSeconds: 1, ...options };
    this.subscription = partition === undefined
      ? reader.subscribe(handlers, all)
      : reader.subscribe(partition, handlers, all);
  }

  async #until(enough, what) {
    const wait = async () => {
      while (!enough()) await once(this.#heard, 'something');
    };
    await within(READ_MS, what, wait());
  }

  /** The events, once there are `count` of them. */
  async take(count) {
    await this.#until(() => this.events.length >= count, `${count} events arrive`);
    return this.events;
  }

  /** The bodies up to a last one. */
  async upTo(last) {
    await this.#until(() => this.events.at(-1)?.body === last, `event ${last} arrives`);
    return this.events.map(({ body }) => body);
  }

  /** The first error. */
  async error() {
    await this.#until(() => this.errors.length > 0, 'an error is told');
    return this.errors[0];
  }
}

async function send(muster, texts) {
  const hub = await connect(muster, 'amqp', 'dev-1', await create(muster, 'dev-1'));
  for (const text of texts) await hub.sendEvent(new device.Message(text));
  return hub;
}

/** A moment that is after all that has happened, and before all that is yet to come. */
async function now() {
  const moment = Date.now() + BEAT_MS;
  while (Date.now() <= moment) await passed(BEAT_MS);
  return moment;
}

/** The partition that holds something, and what is known of it. */
async function filled(reader) {
  const ids = await reader.getPartitionIds();
  const held = await Promise.all(ids.map((id) => reader.getPartitionProperties(id)));
  return held.find(({ isEmpty }) => !isEmpty);
}

for (const transport of Object.keys(OPTIONS)) {
  const shows = (feature) => ({ ...READER, transport, feature });

  check(
    `what the event hub and its partitions hold is told over ${transport}`,
    shows('what the event hub and its partitions hold'),
    async (muster) => {
      await send(muster, ['a', 'b', 'c']);
      const reader = consumer(muster, transport);
      const { name, partitionIds, createdOn } = await reader.getEventHubProperties();
      assert.deepEqual([name, partitionIds], ['hub', ['0', '1', '2', '3']]);
      assert.ok(createdOn instanceof Date);
      const { beginningSequenceNumber, lastEnqueuedSequenceNumber } = await filled(reader);
      assert.deepEqual([beginningSequenceNumber, lastEnqueuedSequenceNumber], [0, 2]);
    },
  );

  check(
    `telemetry is read from every place, with what was said of it, over ${transport}`,
    shows('telemetry from every place, itself included or not, with properties and annotations'),
    async (muster) => {
      const hub = await connect(muster, 'amqp', 'dev-1', await create(muster, 'dev-1'));
      const message = new device.Message(JSON.stringify({ temperature: 50.123 }));
      Object.assign(message, { messageId: 'm/1', correlationId: 'c 1', contentType: 'application/json' });
      message.contentEncoding = 'utf-8';
      message.properties.add('alert', 'no & yes/maybe');
      await hub.sendEvent(message);
      for (const number of NUMBERS) await hub.sendEvent(new device.Message(String(number)));
      const reader = consumer(muster, transport);
      const [first, ...others] = await new Given(muster, transport).take(1 + COUNT);
      assert.deepEqual(first.body, { temperature: 50.123 });
      assert.deepEqual(first.properties, { alert: 'no & yes/maybe' });
      assert.deepEqual([first.messageId, first.correlationId, first.contentType], ['m/1', 'c 1', 'application/json']);
      assert.deepEqual([first.sequenceNumber, first.offset], [0, '0']);
      assert.equal(first.systemProperties['iothub-connection-device-id'], 'dev-1');
      assert.equal(first.systemProperties['iothub-message-source'], 'Telemetry');
      assert.equal(first.systemProperties.to, '/devices/dev-1/messages/events');
      assert.deepEqual(others.map(({ body }) => body), NUMBERS);
      const { partitionId } = await filled(reader);
      const third = others[2];
      for (const place of [{ sequenceNumber: third.sequenceNumber }, { offset: third.offset }]) {
        for (const isInclusive of [true, false]) {
          const from = isInclusive ? 2 : 3;
          const given = new Given(muster, transport, { startPosition: { ...place, isInclusive } }, partitionId);
          const bodies = (await given.take(COUNT - from)).map(({ body }) => body);
          assert.deepEqual(bodies, NUMBERS.slice(from));
          await given.subscription.close();
        }
      }
      const startPosition = { enqueuedOn: first.enqueuedTimeUtc.getTime() - 1 };
      const since = new Given(muster, transport, { startPosition }, partitionId);
      assert.equal((await since.take(1 + COUNT)).length, 1 + COUNT);
      const between = await now();
      const later = [COUNT, COUNT + 1, COUNT + 2];
      for (const number of later) await hub.sendEvent(new device.Message(String(number)));
      const after = new Given(muster, transport, { startPosition: { enqueuedOn: between } }, partitionId);
      assert.deepEqual(await after.upTo(later.at(-1)), later);
    },
  );

  check(
    `a reader reads on after a restart over ${transport}`,
    shows('reads on after a restart of the server: nothing is lost, nothing repeated'),
    async (muster) => {
      const hub = await send(muster, NUMBERS.map(String));
      const reader = consumer(muster, transport);
      const { partitionId } = await filled(reader);
      const given = new Given(muster, transport, {}, partitionId);
      await given.take(COUNT);
      await muster.restart();
      for (const number of NUMBERS) await hub.sendEvent(new device.Message(String(COUNT + number)));
      await given.take(2 * COUNT);
      // What comes twice comes before what is sent once all have come.
      await hub.sendEvent(new device.Message(String(2 * COUNT)));
      assert.deepEqual(await given.upTo(2 * COUNT), Array.from({ length: 2 * COUNT + 1 }, (_, index) => index));
    },
  );
}

check(
  'the higher epoch takes a partition over',
  { ...READER, transport: 'amqp', feature: 'epochs: the higher one takes a partition over, a lower one is refused' },
  async (muster) => {
    await send(muster, ['1']);
    const reader = consumer(muster, 'amqp');
    const { partitionId } = await filled(reader);
    const weak = new Given(muster, 'amqp', { ownerLevel: 1 }, partitionId);
    await weak.take(1);
    const strong = new Given(muster, 'amqp', { ownerLevel: 2 }, partitionId);
    await strong.take(1);
    assert.equal((await weak.error()).code, 'ReceiverDisconnectedError');
    const late = new Given(muster, 'amqp', { ownerLevel: 1 }, partitionId);
    assert.match((await late.error()).message, /epoch 2/);
  },
);

check(
  'a reader from here on gets what comes later, and how far the partition goes',
  { ...READER, transport: 'amqp', feature: 'from here on, with the last event of the partition tracked' },
  async (muster) => {
    const hub = await send(muster, ['0']);
    const reader = consumer(muster, 'amqp');
    const { partitionId } = await filled(reader);
    const given = new Given(muster, 'amqp', { startPosition: latestEventPosition }, partitionId);
    const heard = given.take(1);
    // This client does not tell when it listens.
    let sent = 0;
    await untilTold(() => hub.sendEvent(new device.Message(String(sent += 1))), heard);
    const [{ body: from }] = await heard;
    assert.ok(from > 0, 'what was there is not given');
    const later = Array.from({ length: sent - from + 1 }, (_, index) => from + index);
    assert.deepEqual((await given.take(later.length)).map(({ body }) => body), later);
    const tracked = new Given(muster, 'amqp', { trackLastEnqueuedEventProperties: true }, partitionId);
    const { sequenceNumber, offset } = (await tracked.take(1 + sent)).at(-1);
    assert.equal(sequenceNumber, sent);
    assert.deepEqual([tracked.last.sequenceNumber, tracked.last.offset], [sequenceNumber, offset]);
  },
);

check(
  'whoever may not read is refused in words',
  { ...READER, transport: 'amqp', feature: 'a wrong key and a wrong name are refused in words' },
  async (muster) => {
    const right = muster.hub.eventHubConnectionString;
    const once = { retryOptions: { maxRetries: 0 } };
    const cases = [
      [right.replace('SharedAccessKey=', 'SharedAccessKey=AAAA'), /Unauthorized/],
      [right.replace('EntityPath=hub', 'EntityPath=other'), /no event hub of this name/],
    ];
    for (const [text, words] of cases) {
      const reader = new EventHubConsumerClient(GROUP, text, once);
      muster.closing(() => reader.close());
      await assert.rejects(reader.getEventHubProperties(), words);
    }
    const nowhere = consumer(muster, 'amqp', right, 'nobody');
    const told = new Promise((resolve) => {
      nowhere.subscribe('0', { processEvents: async () => {}, processError: resolve });
    });
    assert.match((await within(READ_MS, 'an error is told', told)).message, /no consumer group/);
  },
);
