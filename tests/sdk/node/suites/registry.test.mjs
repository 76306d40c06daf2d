// azure-iothub at a hub: identities, modules, bulk changes, twins, queries and statistics, and the errors an operator
// sees.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { promisify } from 'node:util';
import common from 'azure-iot-common';
import iothub from 'azure-iothub';
import { watched } from '../covered.mjs';
import { callerOf, connect, create, digitalTwinsOf, registryOf, report } from '../devices.mjs';
import { check, client } from '../muster.mjs';
import { within } from '../process.mjs';

const SERVICE = client('azure-iothub');
const shows = (feature) => ({ ...SERVICE, transport: 'https', credential: 'policy', feature });

const key = (length) => Buffer.alloc(length, length).toString('base64');
const KEYS = { primaryKey: key(32), secondaryKey: key(64) };
const THUMBPRINTS = { primaryThumbprint: 'A'.repeat(40), secondaryThumbprint: 'b'.repeat(64) };
const NO_KEYS = { primaryKey: null, secondaryKey: null };
const NO_THUMBPRINTS = { primaryThumbprint: null, secondaryThumbprint: null };

const overAmqp = (feature) => ({ ...shows(feature), transport: 'amqp' });
const HEARD_MS = 20_000;

const body = async (answered) => (await answered).responseBody;
const plain = (value) => JSON.parse(JSON.stringify(value));

check('identities are created, read, updated, listed and deleted', shows('identities'), async (muster) => {
  const registry = registryOf(muster);
  const made = await body(registry.create({ deviceId: 'dev-1', authentication: { symmetricKey: KEYS } }));
  assert.deepEqual(plain(made.authentication), { type: 'sas', symmetricKey: KEYS, x509Thumbprint: NO_THUMBPRINTS });
  const read = await body(registry.get('dev-1'));
  assert.deepEqual(plain(read), plain(made));
  assert.equal(read.connectionState, 'Disconnected');
  const changed = await body(registry.update({ ...plain(read), status: 'disabled', statusReason: 'stolen' }));
  assert.deepEqual([changed.status, changed.statusReason], ['disabled', 'stolen']);
  assert.equal(changed.generationId, made.generationId);
  assert.notEqual(changed.etag, made.etag);
  assert.deepEqual(plain(changed.authentication.symmetricKey), KEYS);
  await registry.create({ deviceId: 'dev?2#+%' });
  assert.deepEqual((await body(registry.list())).map(({ deviceId }) => deviceId).sort(), ['dev-1', 'dev?2#+%']);
  assert.equal((await registry.delete('dev?2#+%')).httpResponse.statusCode, 204);
  assert.deepEqual((await body(registry.list())).map(({ deviceId }) => deviceId), ['dev-1']);
});

const AUTHENTICATIONS = {
  selfSigned: { type: 'selfSigned', x509Thumbprint: THUMBPRINTS },
  certificateAuthority: { type: 'certificateAuthority' },
};

for (const [type, authentication] of Object.entries(AUTHENTICATIONS)) {
  check(`an identity authenticates by ${type}`, shows(`identities by ${type}`), async (muster) => {
    const made = await body(registryOf(muster).create({ deviceId: 'dev-1', authentication }));
    const expected = { symmetricKey: NO_KEYS, x509Thumbprint: NO_THUMBPRINTS, ...authentication };
    assert.deepEqual(plain(made.authentication), expected);
  });
}

const HALF = { symmetricKey: { primaryKey: KEYS.primaryKey } };
const REFUSALS = [
  ['a device that exists', 'DeviceAlreadyExistsError', (registry) => registry.create({ deviceId: 'dev-1' })],
  ['a device that is not there', 'DeviceNotFoundError', (registry) => registry.get('dev-2')],
  ['an update of no device', 'DeviceNotFoundError', (registry) => registry.update({ deviceId: 'dev-2' })],
  ['a deletion of no device', 'DeviceNotFoundError', (registry) => registry.delete('dev-2')],
  ['a twin of no device', 'DeviceNotFoundError', (registry) => registry.getTwin('dev-2')],
  ['a stale twin', 'InvalidEtagError', (registry) => registry.updateTwin('dev-1', { tags: {} }, 'AAAAAAAAAAk=')],
  ['a tag with a dot', 'ArgumentError', (registry) => registry.updateTwin('dev-1', { tags: { 'a.b': 1 } }, '*')],
  ['half a pair of keys', 'ArgumentError', (registry) => registry.create({ deviceId: 'dev-3', authentication: HALF })],
  ['a device ID with a blank', 'ArgumentError', (registry) => registry.create({ deviceId: 'dev 3' })],
];

for (const [what, name, ask] of REFUSALS) {
  check(`${what} is answered with ${name}`, shows(`errors: ${what}`), async (muster) => {
    const registry = registryOf(muster);
    await registry.create({ deviceId: 'dev-1' });
    await assert.rejects(ask(registry), { name });
  });
}

check('a policy that may only read the registry may not write it', shows('policies'), async (muster) => {
  await registryOf(muster).create({ deviceId: 'dev-1' });
  const host = muster.hub.hostName;
  const policy = await muster.command('policy', 'show', 'registryRead', '--hub', muster.hub.name, '--show-keys');
  const inAnHour = Math.ceil(Date.now() / 1000) + 3600;
  const signatures = watched(iothub.SharedAccessSignature, 'SharedAccessSignature');
  const signedIn = (by) => {
    const signature = signatures.create(host, 'registryRead', by, inAnHour).toString();
    return watched(watched(iothub.Registry).fromSharedAccessSignature(signature));
  };
  const reader = signedIn(policy.primaryKey);
  assert.equal((await body(reader.get('dev-1'))).deviceId, 'dev-1');
  await assert.rejects(reader.create({ deviceId: 'dev-2' }), { name: 'UnauthorizedError' });
  await assert.rejects(reader.getTwin('dev-1'), { name: 'UnauthorizedError' });
  await assert.rejects(signedIn(KEYS.primaryKey).get('dev-1'), { name: 'UnauthorizedError' });
});

check('devices are added, updated and removed together', shows('bulk'), async (muster) => {
  const registry = registryOf(muster);
  const devices = ['dev-1', 'dev-2', 'dev-3'].map((deviceId) => ({ deviceId, status: 'enabled' }));
  assert.deepEqual(await body(registry.addDevices(devices)), { isSuccessful: true, errors: [], warnings: [] });
  const made = (await body(registry.list())).map(plain);
  await registry.updateDevices(made.map((device) => ({ ...device, status: 'disabled' })), false);
  await assert.rejects(registry.updateDevices(made, false), { name: 'ArgumentError' }, 'their etags have changed');
  assert.deepEqual((await body(registry.list())).map(({ status }) => status), ['disabled', 'disabled', 'disabled']);
  await registry.updateDevices(made, true);
  assert.deepEqual((await body(registry.list())).map(({ status }) => status), ['enabled', 'enabled', 'enabled']);
  await registry.removeDevices([{ deviceId: 'dev-1' }], true);
  await assert.rejects(registry.removeDevices(made, false), ({ responseBody }) => {
    const { isSuccessful, errors } = JSON.parse(responseBody);
    assert.equal(isSuccessful, false);
    assert.deepEqual(errors.map(({ deviceId }) => deviceId).sort(), ['dev-1', 'dev-2', 'dev-3']);
    return true;
  });
  assert.deepEqual((await body(registry.list())).map(({ deviceId }) => deviceId), ['dev-2', 'dev-3']);
});

check('statistics count the devices', shows('statistics'), async (muster) => {
  const registry = registryOf(muster);
  await registry.create({ deviceId: 'dev-1' });
  await registry.create({ deviceId: 'dev-2', status: 'disabled' });
  const counts = { totalDeviceCount: 2, enabledDeviceCount: 1, disabledDeviceCount: 1 };
  assert.deepEqual(await body(registry.getRegistryStatistics()), counts);
});

check('modules of a device are created, read, updated and removed', shows('modules'), async (muster) => {
  const registry = registryOf(muster);
  await registry.create({ deviceId: 'dev-1' });
  const made = await body(registry.addModule({ deviceId: 'dev-1', moduleId: 'mod-1' }));
  assert.deepEqual([made.deviceId, made.moduleId, made.authentication.type], ['dev-1', 'mod-1', 'sas']);
  await registry.addModule({ deviceId: 'dev-1', moduleId: 'mod-2' });
  assert.deepEqual(await body(registry.getModule('dev-1', 'mod-1')), made);
  const ids = async () => (await body(registry.getModulesOnDevice('dev-1'))).map(({ moduleId }) => moduleId);
  assert.deepEqual(await ids(), ['mod-1', 'mod-2']);
  const changed = await body(registry.updateModule({ ...made, managedBy: 'someone' }));
  assert.equal(changed.managedBy, 'someone');
  await assert.rejects(registry.updateModule(made), { name: 'InvalidEtagError' });
  await registry.updateModule(made, true);
  await registry.removeModule('dev-1', 'mod-2');
  const remove = promisify(registry.removeModule);
  await assert.rejects(remove(changed), { name: 'InvalidEtagError' });
  assert.deepEqual(await ids(), ['mod-1']);
  const again = registry.addModule({ deviceId: 'dev-1', moduleId: 'mod-1' });
  await assert.rejects(again, { name: 'DeviceAlreadyExistsError' });
});

check('a twin is read, patched and kept from a stale writer', shows('twins'), async (muster) => {
  const registry = registryOf(muster);
  await registry.create({ deviceId: 'dev-1' });
  const twin = watched(await body(registry.getTwin('dev-1')));
  assert.deepEqual([twin.version, twin.tags, twin.properties.desired.$version], [2, {}, 1]);
  const properties = { desired: { temperature: 50.123, list: [1, { a: true }] } };
  const patch = { tags: { place: { room: 4 } }, properties };
  const patched = await body(registry.updateTwin('dev-1', patch, twin.etag));
  assert.notEqual(patched.etag, twin.etag);
  assert.deepEqual(patched.tags, { place: { room: 4 } });
  await assert.rejects(twin.update({ tags: { place: null } }), { name: 'InvalidEtagError' });
  await twin.get();
  await twin.update({ tags: { place: { room: null, shelf: 2 } } });
  assert.deepEqual(twin.tags, { place: { shelf: 2 } });
  const { $metadata, ...desired } = twin.properties.desired;
  assert.deepEqual(desired, { ...properties.desired, $version: 2 });
  assert.deepEqual([$metadata.$lastUpdatedVersion, $metadata.temperature.$lastUpdatedVersion], [2, 2]);
  assert.equal(twin.toJSON().deviceId, 'dev-1');
});

check('a twin shows what a connected device reports', shows('twins: reported, connection state'), async (muster) => {
  const hub = await connect(muster, 'mqtt', 'dev-1', await create(muster, 'dev-1'));
  await report(await hub.getTwin(), { temperature: 21 });
  const twin = await body(registryOf(muster).getTwin('dev-1'));
  assert.equal(twin.connectionState, 'Connected');
  assert.deepEqual([twin.properties.reported.temperature, twin.properties.reported.$version], [21, 2]);
});

check('a twin of a module is read and patched', shows('module twins'), async (muster) => {
  const registry = registryOf(muster);
  await registry.create({ deviceId: 'dev-1' });
  await registry.addModule({ deviceId: 'dev-1', moduleId: 'mod-1' });
  const twin = watched(await body(registry.getModuleTwin('dev-1', 'mod-1')));
  assert.deepEqual([twin.deviceId, twin.moduleId], ['dev-1', 'mod-1']);
  await registry.updateModuleTwin('dev-1', 'mod-1', { properties: { desired: { on: true } } }, twin.etag);
  await twin.get();
  assert.equal(twin.properties.desired.on, true);
  assert.equal((await body(registry.getTwin('dev-1'))).properties.desired.on, undefined);
  await assert.rejects(registry.getModuleTwin('dev-1', 'mod-2'), { name: 'DeviceNotFoundError' });
});

check('a method of a device is called', shows('direct methods'), async (muster) => {
  const hub = await connect(muster, 'mqtt', 'dev-1', await create(muster, 'dev-1'));
  hub.onDeviceMethod('echo', (request, response) => response.send(200, request.payload, () => {}));
  const call = { methodName: 'echo', payload: [1], connectTimeoutInSeconds: 20, responseTimeoutInSeconds: 10 };
  assert.deepEqual((await callerOf(muster).invokeDeviceMethod('dev-1', call)).result, { status: 200, payload: [1] });
});

/** A token of the owner's policy, which lasts an hour. */
function ownersToken(muster) {
  const { HostName, SharedAccessKeyName, SharedAccessKey } = iothub.ConnectionString.parse(muster.hub.connectionString);
  const inAnHour = Math.ceil(Date.now() / 1000) + 3600;
  return iothub.SharedAccessSignature.create(HostName, SharedAccessKeyName, SharedAccessKey, inAnHour);
}

check('a message is sent and its feedback read, with a client by a token', overAmqp('cloud-to-device'), async (muster) => {
  const hub = await connect(muster, 'mqtt', 'dev-1', await create(muster, 'dev-1'));
  const sender = watched(watched(iothub.Client).fromSharedAccessSignature(ownersToken(muster).toString()));
  sender.setRetryPolicy(new common.NoRetry());
  await sender.open();
  const { result: receiver } = await sender.getFeedbackReceiver();
  const told = once(receiver, 'message');
  const heard = once(hub, 'message');
  await sender.send('dev-1', Object.assign(new common.Message('hello'), { messageId: 'm1', ack: 'full' }));
  const [message] = await within(HEARD_MS, 'the message arrives', heard);
  await hub.complete(message);
  const [batch] = await within(HEARD_MS, 'feedback arrives', told);
  assert.equal(JSON.parse(batch.getData().toString())[0].originalMessageId, 'm1');
  await sender.close();
});

check('the transport of a client is used by itself', overAmqp('cloud-to-device: the transport alone'), async (muster) => {
  const hub = await connect(muster, 'mqtt', 'dev-1', await create(muster, 'dev-1'));
  const config = { host: muster.hub.hostName, keyName: 'iothubowner', sharedAccessSignature: ownersToken(muster) };
  const transport = watched(new iothub.Amqp(config), 'Amqp');
  await promisify((done) => transport.connect(done))();
  const heard = once(hub, 'message');
  await promisify((done) => transport.send('dev-1', new common.Message('hello'), done))();
  const [message] = await within(HEARD_MS, 'the message arrives', heard);
  assert.equal(message.getData().toString(), 'hello');
  await promisify((done) => transport.updateSharedAccessSignature(ownersToken(muster).toString(), done))();
  await promisify((done) => transport.getFeedbackReceiver(done))();
  await promisify((done) => transport.getFileNotificationReceiver(done))();
  await promisify((done) => transport.disconnect(done))();
});

/** Five devices, at even numbers in the north, at odd ones in the south. */
async function filled(muster) {
  const registry = registryOf(muster);
  for (const number of [0, 1, 2, 3, 4]) {
    const device = { deviceId: `dev-${number}` };
    await registry.create(device);
    await registry.updateTwin(device.deviceId, { tags: { side: number % 2 ? 'south' : 'north', number } }, '*');
  }
  return registry;
}

/** All pages of a query, as the client reads them. */
async function pages(query, next) {
  const read = [];
  while (query.hasMoreResults) {
    const { result } = await query[next]();
    read.push(result);
  }
  return read;
}

check('twins are read page by page', shows('queries: twins page by page'), async (muster) => {
  const registry = await filled(muster);
  const query = registry.createQuery("SELECT * FROM devices WHERE tags.side = 'north'", 2);
  const read = await pages(query, 'nextAsTwin');
  assert.deepEqual(read.map((page) => page.map(({ deviceId }) => deviceId)), [['dev-0', 'dev-2'], ['dev-4']]);
  const [twin] = read[0];
  assert.deepEqual([twin.tags.number, twin.properties.desired.$version], [0, 1]);
  // What was found is a twin that can be changed.
  await twin.update({ tags: { side: 'south' } });
  assert.equal((await registry.getTwin('dev-0')).responseBody.tags.side, 'south');
});

check('columns and groups are rows of their own', shows('queries: columns, aggregates, groups'), async (muster) => {
  const registry = await filled(muster);
  const rows = async (text) => (await pages(registry.createQuery(text), 'next')).flat();
  assert.deepEqual(await rows("SELECT deviceId AS id, tags.number FROM devices WHERE tags.side != 'north'"), [
    { id: 'dev-1', number: 1 },
    { id: 'dev-3', number: 3 },
  ]);
  assert.deepEqual(await rows('SELECT COUNT() AS n, MAX(tags.number) AS most FROM devices'), [{ n: 5, most: 4 }]);
  const bySide = 'SELECT tags.side AS side, COUNT() AS n, AVG(tags.number) AS mean FROM devices GROUP BY tags.side';
  assert.deepEqual(await rows(bySide), [
    { side: 'north', n: 3, mean: 2 },
    { side: 'south', n: 2, mean: 2 },
  ]);
});

check('a query that is none is refused', shows('queries: refused with the place'), async (muster) => {
  const query = registryOf(muster).createQuery('SELECT * FORM devices');
  await assert.rejects(query.next(), (error) => {
    assert.equal(error.constructor.name, 'ArgumentError');
    assert.match(error.responseBody ?? error.message, /at character 10: expected FROM, found FORM/);
    return true;
  });
});

check('digital twins are read, patched and commanded', shows('digital twins: read, patch, commands'), async (muster) => {
  const hub = await connect(muster, 'mqtt', 'dev-1', await create(muster, 'dev-1'));
  for (const name of ['reboot', 'pump*reboot']) hub.onDeviceMethod(name, (_, response) => response.send(200, name, () => {}));
  const twins = digitalTwinsOf(muster);
  await twins.updateDigitalTwin('dev-1', [{ op: 'add', path: '/pump', value: { rate: 2, $metadata: {} } }]);
  const { pump } = await twins.getDigitalTwin('dev-1');
  assert.deepEqual(pump, { $metadata: { rate: { desiredValue: 2, desiredVersion: 2 } } });
  // The client does not tell when it listens: the command waits for it.
  const options = { connectTimeoutInSeconds: 20 };
  assert.equal((await twins.invokeCommand('dev-1', 'reboot', 1, options)).body, 'reboot');
  assert.equal((await twins.invokeComponentCommand('dev-1', 'pump', 'reboot', 1, options)).body, 'pump*reboot');
});
