// azure-iot-device receives cloud-to-device messages over MQTT, AMQP and HTTPS: properties, order, complete, abandon, reject.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import device from 'azure-iot-device';
import http from 'azure-iot-device-http';
import { CREDENTIALS, TRANSPORTS, connect, create, createByCertificate, enter } from '../devices.mjs';
import { check, client } from '../muster.mjs';
import { within } from '../process.mjs';

const MQTT = client('azure-iot-device-mqtt');
const AMQP = client('azure-iot-device-amqp');
const DEVICES = { mqtt: MQTT, 'mqtt-ws': MQTT, amqp: AMQP, 'amqp-ws': AMQP };
const HTTP_DEVICE = { ...client('azure-iot-device-http'), transport: 'https' };
const TOLD_MS = 20_000;
const SOON_MS = 500;
const BACK_MS = 20_000;
const NUMBERS = Array.from({ length: 20 }, (_, index) => `number ${index}`);

/** Keeps the messages that a client is given, and hands them out in order; each is settled as `settle` says. */
class Inbox {
  #messages = [];
  #heard = new EventEmitter();

  constructor(hub, settle = (message) => hub.complete(message)) {
    hub.on('message', (message) => {
      this.#messages.push(message);
      settle(message);
      this.#heard.emit('message');
    });
  }

  async take(count) {
    const enough = async () => {
      while (this.#messages.length < count) await once(this.#heard, 'message');
      return this.#messages.splice(0, count);
    };
    return within(TOLD_MS, `${count} messages arrive`, enough());
  }
}

const texts = (messages) => messages.map((message) => message.getData().toString());

async function send(muster, text, ...options) {
  return (await muster.command('message', 'send', 'dev-1', text, ...options)).messageId;
}

/** What became of messages, by their IDs, once there is feedback on `count`. */
async function feedback(muster, count) {
  const told = {};
  const all = async () => {
    while (Object.keys(told).length < count) {
      for (const record of await muster.command('message', 'feedback')) {
        told[record.originalMessageId] = record.statusCode;
      }
    }
    return told;
  };
  return within(TOLD_MS, `feedback on ${count} messages`, all());
}

for (const transport of Object.keys(TRANSPORTS)) {
  const shows = (feature, credential = 'symmetric key') => ({ ...DEVICES[transport], transport, credential, feature });

  for (const credential of CREDENTIALS) {
    check(
      `messages arrive with their properties and in order over ${transport} by ${credential}`,
      shows('cloud-to-device: properties, order, complete, feedback', credential),
      async (muster) => {
        const hub = await enter(muster, transport, credential, 'dev-1');
        const inbox = new Inbox(hub);
        const options = ['--correlation-id', 'c 1', '--user-id', 'u', '--content-type', 'application/json'];
        const properties = ['plain=value', 'odd & key=v/ä +=%', 'iothub-operation=reboot'];
        await send(muster, '{"é": 1}', ...options, '--content-encoding', 'utf-8', '--message-id', 'm/1', '--ack', 'full',
          ...properties.flatMap((property) => ['--property', property]));
        const [message] = await inbox.take(1);
        assert.equal(message.getData().toString(), '{"é": 1}');
        const { messageId, correlationId, userId, contentType, contentEncoding, to } = message;
        // Over AMQP this client drops the user ID, and tells apart what feedback is asked for.
        const isAmqp = transport.startsWith('amqp');
        assert.deepEqual([messageId, correlationId, userId], ['m/1', 'c 1', isAmqp ? '' : 'u']);
        assert.deepEqual([contentType, contentEncoding], ['application/json', 'utf-8']);
        assert.equal(to, '/devices/dev-1/messages/deviceBound');
        const arrived = message.properties.propertyList.map(({ key, value }) => [key, value]);
        // Over MQTT what feedback is asked for counts as a property with this client.
        const own = { plain: 'value', 'odd & key': 'v/ä +=%', 'iothub-operation': 'reboot' };
        assert.deepEqual(Object.fromEntries(arrived), { ...own, ...(isAmqp ? {} : { 'iothub-ack': 'full' }) });
        assert.equal(isAmqp ? message.ack : 'full', 'full');
        assert.deepEqual(await feedback(muster, 1), { 'm/1': 'Success' });
        for (const text of NUMBERS) await send(muster, text);
        assert.deepEqual(texts(await inbox.take(NUMBERS.length)), NUMBERS);
      },
    );
  }

  check(
    `messages wait for a device over a restart, and for one that comes back, over ${transport}`,
    shows('cloud-to-device: queued over a restart, received after a reconnect'),
    async (muster) => {
      const key = await create(muster, 'dev-1');
      await send(muster, 'queued', '--ack', 'full', '--message-id', 'm1');
      await muster.restart();
      const hub = await connect(muster, transport, 'dev-1', key);
      const inbox = new Inbox(hub);
      assert.deepEqual(texts(await inbox.take(1)), ['queued']);
      // Until it is completed, it would rightly come again.
      assert.deepEqual(await feedback(muster, 1), { m1: 'Success' });
      const back = once(hub, 'connect');
      await muster.restart();
      await send(muster, 'while it is away');
      await within(BACK_MS, 'the device is back', back);
      assert.deepEqual(texts(await inbox.take(1)), ['while it is away']);
    },
  );
}

for (const transport of ['amqp', 'amqp-ws']) {
  const shows = (feature) => ({ ...AMQP, transport, credential: 'symmetric key', feature });

  check(
    `messages are abandoned, come again, and are rejected in any order over ${transport}`,
    shows('cloud-to-device: abandon, reject'),
    async (muster) => {
      const seen = [];
      const hub = await connect(muster, transport, 'dev-1', await create(muster, 'dev-1'));
      // The first is given back, and settled after the second.
      new Inbox(hub, (message) => {
        seen.push(message.messageId);
        return seen.length === 1 ? hub.abandon(message) : hub.reject(message);
      });
      await send(muster, 'again', '--ack', 'full', '--message-id', 'm1');
      await send(muster, 'once', '--ack', 'full', '--message-id', 'm2');
      assert.deepEqual(await feedback(muster, 2), { m1: 'Rejected', m2: 'Rejected' });
      assert.deepEqual([seen[0], seen.toSorted()], ['m1', ['m1', 'm1', 'm2']]);
    },
  );

  check(
    `messages that an application has not settled come again on a later link over ${transport}`,
    shows('cloud-to-device: unsettled messages come again'),
    async (muster) => {
      const hub = await connect(muster, transport, 'dev-1', await create(muster, 'dev-1'));
      await hub.sendEvent(new device.Message('the device stays'));
      const unsettled = new Inbox(hub, () => {});
      for (const text of ['one', 'two']) await send(muster, text, '--ack', 'full', '--message-id', text);
      assert.deepEqual(texts(await unsettled.take(2)), ['one', 'two']);
      // This client detaches the link with its last listener.
      hub.removeAllListeners('message');
      const inbox = new Inbox(hub);
      assert.deepEqual(texts(await inbox.take(2)), ['one', 'two']);
      assert.deepEqual(await feedback(muster, 2), { one: 'Success', two: 'Success' });
    },
  );
}

/** Creates an identity, as the credential has it; gives what the device says of itself, and what it shows. */
async function evidence(muster, credential) {
  if (credential === 'symmetric key') return [`SharedAccessKey=${await create(muster, 'dev-1')}`, {}];
  const { chain, key } = await createByCertificate(muster, 'dev-1');
  return ['x509=true', { cert: chain, key }];
}

/** A device that asks over HTTPS, again and again unless the policy says otherwise. */
async function polling(muster, [said, shown], receivePolicy = { interval: 1 }) {
  const hub = device.Client.fromConnectionString(`HostName=${muster.hub.hostName};DeviceId=dev-1;${said}`, http.Http);
  muster.closing(() => hub.close());
  // The promise of this client never resolves without a policy of receiving.
  await hub.setOptions({ ...shown, http: { receivePolicy: { ...receivePolicy, drain: true } } });
  await hub.open();
  return hub;
}

for (const credential of CREDENTIALS) {
  check(
    `messages are polled with their properties, in order, and completed over https by ${credential}`,
    { ...HTTP_DEVICE, credential, feature: 'cloud-to-device: properties, order, complete, feedback' },
    async (muster) => {
      const own = await evidence(muster, credential);
      await send(muster, 'first', '--correlation-id', 'c', '--message-id', 'm1', '--ack', 'full', '--property', 'plain=value');
      for (const text of NUMBERS) await send(muster, text);
      // Once: a second round would begin before the first is over, and get some of its messages.
      const hub = await polling(muster, own, { at: new Date(Date.now() + SOON_MS) });
      const inbox = new Inbox(hub);
      const [message, ...others] = await inbox.take(1 + NUMBERS.length);
      assert.equal(message.getData().toString(), 'first');
      const { messageId, correlationId, to } = message;
      assert.deepEqual([messageId, correlationId, to], ['m1', 'c', '/devices/dev-1/messages/deviceBound']);
      // The client leaves the prefix on the names that it shows.
      assert.equal(message.properties.getValue('iothub-app-plain'), 'value');
      assert.deepEqual(texts(others), NUMBERS);
      assert.deepEqual(await feedback(muster, 1), { m1: 'Success' });
    },
  );
}

check(
  'a message is abandoned, comes again, and is rejected over https',
  { ...HTTP_DEVICE, credential: 'symmetric key', feature: 'cloud-to-device: abandon, reject' },
  async (muster) => {
    await send(muster, 'never', '--ack', 'full').then(assert.fail, (error) => assert.match(`${error}`, /not found/));
    const hub = await polling(muster, await evidence(muster, 'symmetric key'));
    const seen = [];
    new Inbox(hub, (message) => {
      seen.push(message.messageId);
      return seen.length === 1 ? hub.abandon(message) : hub.reject(message);
    });
    await send(muster, 'again', '--ack', 'full', '--message-id', 'm1');
    assert.deepEqual(await feedback(muster, 1), { m1: 'Rejected' });
    assert.deepEqual(seen, ['m1', 'm1']);
  },
);
