// azure-iot-device-http sends telemetry: single messages and batches, with properties, by key and by certificate.

import '../trust.mjs';
import assert from 'node:assert/strict';
import device from 'azure-iot-device';
import http from 'azure-iot-device-http';
import { create } from '../devices.mjs';
import { check, client } from '../muster.mjs';

const NUMBERS = Array.from({ length: 50 }, (_, index) => `number ${index}`);
const SHOWN = { ...client('azure-iot-device-http'), transport: 'https' };
const BYTES_MAX = 262_144;

/** A device that sends over HTTPS; it opens no connection that lasts. */
async function sender(muster, identity, options = {}) {
  const hub = device.Client.fromConnectionString(`HostName=${muster.hub.hostName};${identity}`, http.Http);
  muster.closing(() => hub.close());
  // The promise of this client never resolves without a policy of receiving.
  await hub.setOptions({ ...options, http: { receivePolicy: { interval: 3_600 } } });
  return hub;
}

const byKey = async (muster, name) => sender(muster, `DeviceId=${name};SharedAccessKey=${await create(muster, name)}`);

check(
  'telemetry arrives in order, with its properties, over https',
  { ...SHOWN, credential: 'symmetric key', feature: 'telemetry as the monitor shows it' },
  async (muster) => {
    const hub = await byKey(muster, 'dev-1');
    const message = new device.Message(JSON.stringify({ temperature: 50.123 }));
    Object.assign(message, { messageId: 'm/1', correlationId: 'c 1', userId: 'u', contentType: 'application/json' });
    message.contentEncoding = 'utf-8';
    message.properties.add('alert', 'no & yes/maybe');
    await hub.sendEvent(message);
    for (const number of NUMBERS) await hub.sendEvent(new device.Message(number));
    // What was answered is there after a restart.
    await muster.restart();
    const [first, ...others] = await muster.telemetry(1 + NUMBERS.length);
    assert.deepEqual([first.deviceId, first.body], ['dev-1', { temperature: 50.123 }]);
    assert.deepEqual(first.properties, { alert: 'no & yes/maybe' });
    const { messageId, correlationId, userId, contentType, contentEncoding } = first.systemProperties;
    const system = [messageId, correlationId, userId, contentType, contentEncoding];
    assert.deepEqual(system, ['m/1', 'c 1', 'u', 'application/json', 'utf-8']);
    assert.deepEqual(others.map(({ body }) => body), NUMBERS);
  },
);

check(
  'a batch arrives in order, with the properties of each message, over https',
  { ...SHOWN, credential: 'symmetric key', feature: 'telemetry in a batch' },
  async (muster) => {
    const hub = await byKey(muster, 'dev-1');
    const messages = NUMBERS.map((number) => new device.Message(number));
    for (const [index, message] of messages.entries()) message.properties.add('Index', `${index}`);
    await hub.sendEventBatch(messages);
    const arrived = await muster.telemetry(NUMBERS.length);
    assert.deepEqual(arrived.map(({ body }) => body), NUMBERS);
    assert.deepEqual(arrived.map(({ properties }) => properties.Index), NUMBERS.map((_, index) => `${index}`));
  },
);

check(
  'what is too large, and who is not known, is refused by name over https',
  { ...SHOWN, credential: 'symmetric key', feature: 'telemetry that is refused' },
  async (muster) => {
    const hub = await byKey(muster, 'dev-1');
    await assert.rejects(hub.sendEvent(new device.Message('a'.repeat(BYTES_MAX + 1))), { name: 'MessageTooLargeError' });
    const half = 'a'.repeat(BYTES_MAX / 2);
    const halves = [half, half, 'a'].map((text) => new device.Message(text));
    await assert.rejects(hub.sendEventBatch(halves), { name: 'MessageTooLargeError' });
    const stranger = await sender(muster, `DeviceId=dev-2;SharedAccessKey=${Buffer.alloc(32).toString('base64')}`);
    await assert.rejects(stranger.sendEvent(new device.Message('a')), { name: 'UnauthorizedError' });
    await hub.sendEvent(new device.Message('a'.repeat(BYTES_MAX)));
    const [{ body }] = await muster.telemetry(1);
    assert.equal(body.length, BYTES_MAX);
  },
);

check(
  'a device sends over https by its certificate',
  { ...SHOWN, credential: 'X.509', feature: 'telemetry as the monitor shows it' },
  async (muster) => {
    await muster.certificate('root', 'root');
    await muster.prove('root', ['--hub', muster.hub.name]);
    const own = await muster.certificate('device', 'dev-x', '--issuer', 'root');
    await create(muster, 'dev-x', { authentication: { type: 'certificateAuthority' } });
    const hub = await sender(muster, 'DeviceId=dev-x;x509=true', { cert: own.chain, key: own.key });
    await hub.sendEvent(new device.Message('25.1'));
    const [{ deviceId, body }] = await muster.telemetry(1);
    assert.deepEqual([deviceId, `${body}`], ['dev-x', '25.1']);
  },
);
