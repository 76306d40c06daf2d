// azure-iothub sends to devices and reads feedback over AMQP and AMQP over WebSockets, refusals and cut-offs included.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import common from 'azure-iot-common';
import iothub from 'azure-iothub';
import { connect, create } from '../devices.mjs';
import { check, client } from '../muster.mjs';
import { within } from '../process.mjs';

const SERVICE = client('azure-iothub');
const TRANSPORTS = { amqp: iothub.Amqp, 'amqp-ws': iothub.AmqpWs };
const HEARD_MS = 20_000;
// A hub notices within a second that a policy or a token is worth nothing any more.
const CUT_OFF_MS = 5_000;

/** A client over AMQP, by the owner's policy unless another connection string is given. */
async function backend(muster, transport, text = muster.hub.connectionString) {
  const hub = iothub.Client.fromConnectionString(text, TRANSPORTS[transport]);
  // What is refused is told, and not tried for four minutes.
  hub.setRetryPolicy(new common.NoRetry());
  muster.closing(() => hub.close());
  await hub.open();
  return hub;
}

function message(text, properties = {}) {
  return Object.assign(new common.Message(text), properties);
}

/** What reads feedback; the client wraps it as it wraps answers over HTTPS. */
async function receiverOf(hub) {
  const { result } = await hub.getFeedbackReceiver();
  return result;
}

/**
 * Keeps the batches that a receiver is given, in order. Each is settled at once: what a listener leaves, this client
 * accepts by itself.
 */
class Batches {
  #batches = [];
  #heard = new EventEmitter();

  constructor(receiver, settle = (batch) => receiver.complete(batch)) {
    receiver.on('message', (batch) => {
      settle(batch);
      this.#batches.push(batch);
      this.#heard.emit('message');
    });
  }

  async next() {
    const first = async () => {
      while (this.#batches.length === 0) await once(this.#heard, 'message');
      return this.#batches.shift();
    };
    return within(HEARD_MS, 'feedback arrives', first());
  }
}

const records = (batch) => JSON.parse(batch.getData().toString());

/** Has a message completed by its device, so that there is feedback on it. */
async function complete(muster, hub, messageId) {
  const registry = iothub.Registry.fromConnectionString(muster.hub.connectionString);
  const { responseBody } = await registry.get('dev-1');
  const device = await connect(muster, 'mqtt', 'dev-1', responseBody.authentication.symmetricKey.primaryKey);
  const heard = once(device, 'message');
  await hub.send('dev-1', message('completed', { messageId, ack: 'full' }));
  const [received] = await within(HEARD_MS, 'the message arrives', heard);
  await device.complete(received);
  await device.close();
}

/** A connection string by a policy with these rights alone. */
async function policy(muster, name, ...rights) {
  await muster.command('policy', 'create', name, '--hub', muster.hub.name, '--rights', ...rights);
  const { primaryKey } = await muster.command('policy', 'show', name, '--hub', muster.hub.name, '--show-keys');
  return `HostName=${muster.hub.hostName};SharedAccessKeyName=${name};SharedAccessKey=${primaryKey}`;
}

for (const transport of Object.keys(TRANSPORTS)) {
  const shows = (feature) => ({ ...SERVICE, transport, credential: 'policy', feature });

  check(
    `a message is sent with its properties, and its feedback is read, over ${transport}`,
    shows('cloud-to-device: send, properties, feedback'),
    async (muster) => {
      const device = await connect(muster, 'mqtt', 'dev-1', await create(muster, 'dev-1'));
      const hub = await backend(muster, transport);
      const receiver = await receiverOf(hub);
      const batches = new Batches(receiver);
      const system = { messageId: 'm 1', correlationId: 'c', contentType: 'text/plain', contentEncoding: 'utf-8' };
      const sent = message('hellö', { ...system, ack: 'full' });
      sent.properties.add('plain', 'value');
      const heard = once(device, 'message');
      await hub.send('dev-1', sent);
      const [received] = await within(HEARD_MS, 'the message arrives', heard);
      assert.equal(received.getData().toString(), 'hellö');
      for (const [name, value] of Object.entries(system)) assert.equal(received[name], value, name);
      assert.equal(received.properties.getValue('plain'), 'value');
      await device.complete(received);
      const batch = await batches.next();
      const [{ originalMessageId, deviceId, statusCode, description }, ...others] = records(batch);
      assert.deepEqual([originalMessageId, deviceId, statusCode, description], ['m 1', 'dev-1', 'Success', 'Success']);
      assert.deepEqual(others, []);
      assert.equal(batch.contentType, 'application/vnd.microsoft.iothub.feedback.json');
    },
  );

  check(
    `feedback comes again until it is settled, over ${transport}`,
    shows('feedback: abandon, reject'),
    async (muster) => {
      await create(muster, 'dev-1');
      const hub = await backend(muster, transport);
      await complete(muster, hub, 'm1');
      const receiver = await receiverOf(hub);
      const seen = [];
      const batches = new Batches(receiver, (batch) => {
        seen.push(records(batch)[0].originalMessageId);
        return seen.length < 3 ? receiver.abandon(batch) : receiver.reject(batch);
      });
      for (let time = 0; time < 3; time += 1) await batches.next();
      assert.deepEqual(seen, ['m1', 'm1', 'm1']);
      await complete(muster, hub, 'm2');
      await batches.next();
      assert.deepEqual(seen.slice(3), ['m2'], 'what was rejected does not come again');
    },
  );

  check(
    `what is not taken is refused by name over ${transport}`,
    shows('cloud-to-device: refused (unknown device, queue full, too large, no right)'),
    async (muster) => {
      await create(muster, 'dev-1');
      const hub = await backend(muster, transport);
      const refused = (sending) => sending.then(() => assert.fail('it was taken'), ({ name }) => name);
      assert.equal(await refused(hub.send('nobody', message('a'))), 'DeviceNotFoundError');
      assert.equal(await refused(hub.send('dev-1', message('x'.repeat(65_537)))), 'MessageTooLargeError');
      for (let number = 0; number < 50; number += 1) await hub.send('dev-1', message(`${number}`));
      assert.equal(await refused(hub.send('dev-1', message('one more'))), 'DeviceMaximumQueueDepthExceededError');
      const reader = await policy(muster, 'reader', 'RegistryRead');
      const sending = await backend(muster, transport, reader);
      assert.equal(await refused(sending.send('dev-1', message('a'))), 'UnauthorizedError');
      // This client takes a link for attached before it hears that it was refused.
      const receiving = await backend(muster, transport, reader);
      const ended = once(receiving, 'disconnect');
      await receiving.getFeedbackReceiver();
      const [{ reason }] = await within(HEARD_MS, 'the client hears of the refusal', ended);
      assert.equal(reason.condition, 'amqp:unauthorized-access');
    },
  );

  check(
    `a client is cut off whose policy is gone, over ${transport}`,
    shows('cut off when the policy is deleted'),
    async (muster) => {
      const hub = await backend(muster, transport, await policy(muster, 'sender', 'ServiceConnect'));
      await receiverOf(hub);
      const cut = once(hub, 'disconnect');
      await muster.command('policy', 'delete', 'sender', '--hub', muster.hub.name);
      const [{ reason }] = await within(CUT_OFF_MS, 'the client is cut off', cut);
      assert.equal(reason.condition, 'amqp:unauthorized-access');
    },
  );
}
