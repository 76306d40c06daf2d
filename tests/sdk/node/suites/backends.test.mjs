// azure-iothub sends to devices, reads feedback and hears of uploaded files over AMQP and AMQP over WebSockets, refusals and
// cut-offs included.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import common from 'azure-iot-common';
import { Client } from 'azure-iot-device';
import mqtt from 'azure-iot-device-mqtt';
import iothub from 'azure-iothub';
import { watched } from '../covered.mjs';
import { connect, create } from '../devices.mjs';
import { check, client } from '../muster.mjs';
import { within } from '../process.mjs';

const SERVICE = client('azure-iothub');
const TRANSPORTS = { amqp: iothub.Amqp, 'amqp-ws': iothub.AmqpWs };
const HEARD_MS = 20_000;
// A client whose right is gone is cut off within a second.
const CUT_OFF_MS = 1_000;

/** A client over AMQP, by the owner's policy unless another connection string is given. */
async function backend(muster, transport, text = muster.hub.connectionString) {
  const hub = watched(iothub.Client.fromConnectionString(text, TRANSPORTS[transport]));
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

/** What hears of uploaded files. */
async function fileReceiverOf(hub) {
  const { result } = await hub.getFileNotificationReceiver();
  return result;
}

/**
 * Keeps what a receiver is given, in order. Each message is settled at once: what a listener leaves, this client accepts
 * by itself.
 */
class Inbox {
  #messages = [];
  #heard = new EventEmitter();

  constructor(receiver, settle = (message) => receiver.complete(message)) {
    receiver.on('message', (message) => {
      settle(message);
      this.#messages.push(message);
      this.#heard.emit('message');
    });
  }

  async next() {
    const first = async () => {
      while (this.#messages.length === 0) await once(this.#heard, 'message');
      return this.#messages.shift();
    };
    return within(HEARD_MS, 'a message arrives', first());
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

/** Has a device upload files under these names, one after another. */
async function upload(muster, ...names) {
  const { responseBody } = await iothub.Registry.fromConnectionString(muster.hub.connectionString).get('dev-1');
  const key = responseBody.authentication.symmetricKey.primaryKey;
  const text = `HostName=${muster.hub.hostName};DeviceId=dev-1;SharedAccessKey=${key}`;
  // Files go over HTTPS whatever the transport is, which is not opened.
  const device = Client.fromConnectionString(text, mqtt.Mqtt);
  await device.setOptions({ ca: await readFile(muster.endpoints.caFile, 'utf8') });
  for (const name of names) await device.uploadToBlob(name, Readable.from(['four']), 4);
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
      const inbox = new Inbox(receiver);
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
      const batch = await inbox.next();
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
      const inbox = new Inbox(receiver, (batch) => {
        seen.push(records(batch)[0].originalMessageId);
        return seen.length < 3 ? receiver.abandon(batch) : receiver.reject(batch);
      });
      for (let time = 0; time < 3; time += 1) await inbox.next();
      assert.deepEqual(seen, ['m1', 'm1', 'm1']);
      await complete(muster, hub, 'm2');
      await inbox.next();
      assert.deepEqual(seen.slice(3), ['m2'], 'what was rejected does not come again');
    },
  );

  check(
    `a back end hears of files as they are uploaded, over ${transport}`,
    shows('file notifications: complete, abandon, reject'),
    async (muster) => {
      await muster.command('hub', 'update', muster.hub.name, '--upload-container', 'uploads', '--upload-notifications', 'true');
      await create(muster, 'dev-1');
      const hub = await backend(muster, transport);
      const receiver = await fileReceiverOf(hub);
      // Abandoned once, completed, and the other is rejected.
      const settled = ['abandon', 'complete', 'reject'];
      const inbox = new Inbox(receiver, (told) => receiver[settled.shift()](told));
      const named = async () => JSON.parse((await inbox.next()).getData().toString()).blobName;
      await upload(muster, 'logs/a b.txt');
      const told = await inbox.next();
      assert.equal(told.contentType, 'application/vnd.microsoft.iothub.filenotification.json');
      const { lastUpdatedTime, enqueuedTimeUtc, ...rest } = JSON.parse(told.getData().toString());
      assert.deepEqual(rest, {
        deviceId: 'dev-1',
        blobUri: `https://${muster.hub.hostName}/uploads/dev-1/logs/a%20b.txt`,
        blobName: 'dev-1/logs/a b.txt',
        blobSizeInBytes: 4,
      });
      assert.ok(new Date(lastUpdatedTime) <= new Date(enqueuedTimeUtc));
      assert.equal(await named(), 'dev-1/logs/a b.txt', 'what was abandoned comes again');
      await upload(muster, 'second');
      assert.equal(await named(), 'dev-1/second');
      assert.deepEqual(await muster.command('file', 'notifications'), [], 'nothing is left');
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
      for (const receive of [receiverOf, fileReceiverOf]) {
        const receiving = await backend(muster, transport, reader);
        const ended = once(receiving, 'disconnect');
        await receive(receiving);
        const [{ reason }] = await within(HEARD_MS, 'the client hears of the refusal', ended);
        assert.equal(reason.condition, 'amqp:unauthorized-access');
      }
    },
  );

  check(
    `a client is cut off whose policy is gone, over ${transport}`,
    shows('cut off when the policy is deleted'),
    async (muster) => {
      const reader = await policy(muster, 'reader', 'ServiceConnect');
      const cut = [];
      for (const receive of [receiverOf, fileReceiverOf]) {
        const hub = await backend(muster, transport, reader);
        await receive(hub);
        cut.push(once(hub, 'disconnect'));
      }
      await muster.command('policy', 'delete', 'reader', '--hub', muster.hub.name);
      for (const [{ reason }] of await within(CUT_OFF_MS, 'the clients are cut off', Promise.all(cut))) {
        assert.equal(reason.condition, 'amqp:unauthorized-access');
      }
    },
  );
}
