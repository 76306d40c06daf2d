// The calls that Azure IoT Explorer makes, as its source writes them (dataPlaneHelper.ts, devicesService.ts,
// moduleService.ts, digitalTwinService.ts, eventHubHelper.ts, eventHubHandler.ts, deviceHandler.ts of 0.15.8): its own
// tokens, paths that are percent-encoded as a whole, and over AMQP the clients that it is built with.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { createRequire } from 'node:module';
import { EventHubConsumerClient, earliestEventPosition } from '@azure/event-hubs';
import common from 'azure-iot-common';
import iothub from 'azure-iothub';
import { connect, create, report } from '../devices.mjs';
import { check } from '../muster.mjs';
import { within } from '../process.mjs';

// The version that @azure/event-hubs brings along, as the app's does.
const { Connection, ReceiverEvents, parseConnectionString } = createRequire(createRequire(import.meta.url).resolve('@azure/event-hubs'))('rhea-promise');

const EXPLORER = { client: 'Azure IoT Explorer (its calls)', version: '0.15.8', transport: 'https', credential: 'policy' };
const VERSION = '2020-09-30';
const MODEL = 'dtmi:com:example:TemperatureController;2';
const SAS_EXPIRES_S = 300;
const HEARD_MS = 20_000;
const LIST_DEVICES = `
    SELECT deviceId as DeviceId,
    status as Status,
    lastActivityTime as LastActivityTime,
    statusUpdatedTime as StatusUpdatedTime,
    authenticationType as AuthenticationType,
    cloudToDeviceMessageCount as CloudToDeviceMessageCount,
    connectionState as ConnectionState,
    capabilities.iotEdge as IotEdge,
    modelId as ModelId
    FROM devices`;

/** The members of a connection string; a key loses its padding, as the app's does. */
function parse(connectionString) {
  return Object.fromEntries(connectionString.split(';').map((part) => part.split('=', 2)));
}

function token({ HostName, SharedAccessKeyName, SharedAccessKey }, path = '') {
  const uri = encodeURIComponent(`${HostName}${path}`);
  const expires = Math.ceil(Date.now() / 1000 + SAS_EXPIRES_S);
  const signed = createHmac('sha256', Buffer.from(SharedAccessKey, 'base64')).update(`${uri}\n${expires}`).digest('base64');
  return `SharedAccessSignature sr=${uri}&sig=${encodeURIComponent(signed)}&se=${expires}&skn=${SharedAccessKeyName}`;
}

/** Calls the hub as the app's local server does; gives the status as the app's pages see it, the headers and the body. */
async function call(muster, method, path, { body, headers, query = '' } = {}) {
  const known = parse(muster.hub.connectionString);
  const parameters = `${query && `${query}&`}api-version=${VERSION}`;
  const response = await fetch(`https://${known.HostName}/${encodeURIComponent(path)}?${parameters}`, {
    method,
    headers: { Accept: 'application/json', Authorization: token(known), 'Content-Type': 'application/json', ...headers },
    body: body && JSON.stringify(body),
  });
  const text = await response.text();
  const told = response.headers.get('x-ms-command-statuscode');
  return { status: told ? parseInt(told) : response.status, headers: response.headers, body: text && JSON.parse(text) };
}

const identity = (deviceId) => ({
  authentication: { symmetricKey: { primaryKey: null, secondaryKey: null }, type: 'sas', x509Thumbprint: null },
  capabilities: { iotEdge: false },
  cloudToDeviceMessageCount: null,
  deviceId,
  etag: null,
  lastActivityTime: null,
  status: 'enabled',
  statusReason: null,
  statusUpdatedTime: null,
});

const list = (muster, where = '', headers = {}) =>
  call(muster, 'POST', 'devices/query', {
    body: { query: `${LIST_DEVICES} ${where}` },
    headers: { 'x-ms-max-item-count': '100', ...headers },
  });

check('devices are added, listed, filtered, changed and deleted', { ...EXPLORER, feature: 'devices and their list' }, async (muster) => {
  for (const name of ['dev-1', 'dev-2', 'other']) {
    const { status, body } = await call(muster, 'PUT', `devices/${name}`, { body: identity(name) });
    assert.equal(status, 200);
    assert.ok(body.authentication.symmetricKey.primaryKey);
  }
  const { body: found } = await list(muster);
  assert.deepEqual(found.map((device) => device.DeviceId), ['dev-1', 'dev-2', 'other']);
  const [{ LastActivityTime, ...first }] = found;
  assert.ok(LastActivityTime);
  assert.deepEqual(first, {
    DeviceId: 'dev-1',
    Status: 'enabled',
    AuthenticationType: 'sas',
    CloudToDeviceMessageCount: 0,
    ConnectionState: 'Disconnected',
    IotEdge: false,
    ModelId: '',
  });
  const named = await list(muster, "WHERE STARTSWITH(devices.deviceId, 'dev')");
  assert.deepEqual(named.body.map((device) => device.DeviceId), ['dev-1', 'dev-2']);
  const page = await list(muster, '', { 'x-ms-max-item-count': '2' });
  const next = await list(muster, '', { 'x-ms-max-item-count': '2', 'x-ms-continuation': page.headers.get('x-ms-continuation') });
  assert.deepEqual([page.body.length, next.body.map((device) => device.DeviceId)], [2, ['other']]);
  const { body: read } = await call(muster, 'GET', 'devices/dev-2');
  const changed = await call(muster, 'PUT', 'devices/dev-2', {
    body: { ...read, status: 'disabled' },
    headers: { 'If-Match': `"${read.etag}"` },
  });
  assert.deepEqual([changed.status, changed.body.status], [200, 'disabled']);
  const disabled = await list(muster, "WHERE (status='disabled')");
  assert.deepEqual(disabled.body.map((device) => device.DeviceId), ['dev-2']);
  const items = ['dev-1', 'dev-2'].map((id) => ({ etag: '*', id, importMode: 'deleteIfMatchEtag' }));
  const deleted = await call(muster, 'POST', 'devices', { body: items });
  assert.deepEqual([deleted.status, deleted.body.isSuccessful], [200, true]);
  assert.deepEqual((await list(muster)).body.map((device) => device.DeviceId), ['other']);
  const gone = await call(muster, 'GET', 'devices/dev-1');
  assert.match(gone.body.Message, /^ErrorCode:DeviceNotFound;/);
});

check('modules are added, listed, read and deleted', { ...EXPLORER, feature: 'modules and their twins' }, async (muster) => {
  await call(muster, 'PUT', 'devices/dev-1', { body: identity('dev-1') });
  const module = { authentication: { symmetricKey: {}, type: 'sas' }, deviceId: 'dev-1', moduleId: 'mod-1' };
  assert.equal((await call(muster, 'PUT', 'devices/dev-1/modules/mod-1', { body: module })).status, 200);
  const { body: modules } = await call(muster, 'GET', 'devices/dev-1/modules');
  assert.deepEqual(modules.map(({ moduleId }) => moduleId), ['mod-1']);
  assert.equal((await call(muster, 'GET', 'devices/dev-1/modules/mod-1')).body.moduleId, 'mod-1');
  assert.equal((await call(muster, 'GET', 'twins/dev-1/modules/mod-1')).body.moduleId, 'mod-1');
  const deleted = await call(muster, 'DELETE', 'devices/dev-1/modules/mod-1', { headers: { 'If-Match': '*' } });
  assert.deepEqual([deleted.status, deleted.body], [204, '']);
});

check('a twin is read and changed, and a method called', { ...EXPLORER, feature: 'twin and direct method' }, async (muster) => {
  const { body: made } = await call(muster, 'PUT', 'devices/dev-1', { body: identity('dev-1') });
  const { body: twin } = await call(muster, 'GET', 'twins/dev-1');
  twin.tags = { place: 'cave' };
  twin.properties.desired.fanSpeed = 2;
  const { status, body } = await call(muster, 'PATCH', 'twins/dev-1', { body: twin });
  assert.deepEqual([status, body.tags, body.properties.desired.fanSpeed], [200, { place: 'cave' }, 2]);
  const invoke = { connectTimeoutInSeconds: 20, methodName: 'reboot', payload: { delay: 5 }, responseTimeoutInSeconds: 20 };
  const away = await call(muster, 'POST', 'twins/dev-1/methods', { body: { ...invoke, connectTimeoutInSeconds: 0 } });
  assert.deepEqual([away.status, JSON.parse(away.body.Message).errorCode], [404, 404103]);
  const hub = await connect(muster, 'mqtt', 'dev-1', made.authentication.symmetricKey.primaryKey);
  hub.onDeviceMethod('reboot', ({ payload }, response) => response.send(202, payload, () => {}));
  const answered = await call(muster, 'POST', 'twins/dev-1/methods', { body: invoke });
  assert.deepEqual(answered.body, { status: 202, payload: { delay: 5 } });
});

check('a component is read, changed and commanded', { ...EXPLORER, feature: 'Plug and Play components' }, async (muster) => {
  const { body: made } = await call(muster, 'PUT', 'devices/dev-1', { body: identity('dev-1') });
  const hub = await connect(muster, 'mqtt', 'dev-1', made.authentication.symmetricKey.primaryKey, { modelId: MODEL });
  await report(await hub.getTwin(), { thermostat1: { __t: 'c', maxTempSinceLastReboot: 25.3 } });
  hub.onDeviceMethod('thermostat1*getMaxMinReport', ({ payload }, response) => response.send(200, { since: payload }, () => {}));
  hub.onDeviceMethod('reboot', (_, response) => response.send(422, 'too hot', () => {}));
  assert.equal((await list(muster)).body[0].ModelId, MODEL);
  const read = await call(muster, 'GET', '/digitalTwins/dev-1');
  assert.equal(read.body.$metadata.$model, MODEL);
  assert.equal(read.body.thermostat1.maxTempSinceLastReboot, 25.3);
  const patch = [{ op: 'add', path: '/thermostat1/targetTemperature', value: 21.4 }];
  assert.equal((await call(muster, 'PATCH', '/digitalTwins/dev-1', { body: patch })).status, 202);
  const { body } = await call(muster, 'GET', '/digitalTwins/dev-1');
  assert.equal(body.thermostat1.$metadata.targetTemperature.desiredValue, 21.4);
  const query = 'connectTimeoutInSeconds=20&responseTimeoutInSeconds=20';
  const commands = '/digitalTwins/dev-1/components/thermostat1/commands';
  const told = await call(muster, 'POST', `${commands}/getMaxMinReport`, { body: 'noon', query });
  assert.deepEqual([told.status, told.body], [200, { since: 'noon' }]);
  const failed = await call(muster, 'POST', '/digitalTwins/dev-1/commands/reboot', { body: 5, query });
  assert.deepEqual([failed.status, failed.body], [422, 'too hot']);
});

/** Asks the hub where its telemetry is read, and makes a connection string of what it is told. */
async function eventHubOf(muster) {
  // As the app reads it here, where the key keeps its padding.
  const known = parseConnectionString(muster.hub.connectionString);
  // Of an address that is no name, this is the first number.
  const [name] = known.HostName.split('.');
  const policy = known.SharedAccessKeyName;
  const connection = new Connection({
    transport: 'tls',
    host: known.HostName,
    hostname: known.HostName,
    username: `${policy}@sas.root.${name}`,
    port: 5671,
    reconnect: false,
    password: token(known, '/messages/events'),
  });
  await connection.open();
  const receiver = await connection.createReceiver({ source: { address: `amqps://${known.HostName}/messages/events/$management` } });
  await within(HEARD_MS, 'the hub tells the way', once(receiver, ReceiverEvents.receiverError));
  const { condition, info } = receiver.error;
  assert.equal(condition, 'amqp:link:redirect');
  await connection.close();
  return `Endpoint=sb://${info.hostname}/;EntityPath=${name};SharedAccessKeyName=${policy};SharedAccessKey=${known.SharedAccessKey}`;
}

check(
  'telemetry of a device is watched from a time on',
  { ...EXPLORER, transport: 'amqp', feature: 'telemetry' },
  async (muster) => {
    const hub = await connect(muster, 'mqtt', 'dev-1', await create(muster, 'dev-1'));
    const send = (text) => hub.sendEvent(Object.assign(new common.Message(text), { contentType: 'application/json' }));
    await send('{"number":1}');
    const connectionString = await eventHubOf(muster);
    const watch = async (startPosition, count) => {
      const told = [];
      const heard = new EventEmitter();
      const reader = new EventHubConsumerClient('$Default', connectionString);
      const subscription = reader.subscribe(
        {
          processEvents: async (events) => {
            told.push(...events.filter((event) => event.systemProperties['iothub-connection-device-id'] === 'dev-1'));
            heard.emit('something');
          },
          processError: async (error) => heard.emit('error', error),
        },
        { startPosition },
      );
      const enough = async () => {
        while (told.length < count) await once(heard, 'something');
      };
      await within(HEARD_MS, `${count} events arrive`, enough());
      await subscription.close();
      await reader.close();
      return told;
    };
    const [first] = await watch(earliestEventPosition, 1);
    assert.deepEqual(first.body, { number: 1 });
    await send('{"number":2}');
    const later = { enqueuedOn: first.enqueuedTimeUtc.getTime() + 1 };
    const [second, ...others] = await watch(later, 1);
    assert.deepEqual([second.body, others], [{ number: 2 }, []]);
  },
);

check(
  'a message is sent to a device with its properties',
  { ...EXPLORER, transport: 'amqp', feature: 'cloud-to-device messages' },
  async (muster) => {
    const device = await connect(muster, 'mqtt', 'dev-1', await create(muster, 'dev-1'));
    const heard = once(device, 'message');
    const hub = iothub.Client.fromConnectionString(muster.hub.connectionString);
    const message = new common.Message('hello');
    const expiryTimeUtc = Date.now() + HEARD_MS;
    Object.assign(message, { ack: 'full', contentType: 'text/plain', correlationId: 'c', expiryTimeUtc, messageId: 'm', lockToken: 'l' });
    message.properties.add('plain', 'value');
    await hub.open();
    await hub.send('dev-1', message);
    await hub.close();
    const [received] = await within(HEARD_MS, 'the message arrives', heard);
    assert.deepEqual(
      [received.getData().toString(), received.messageId, received.correlationId, received.contentType],
      ['hello', 'm', 'c', 'text/plain'],
    );
    assert.equal(received.properties.getValue('plain'), 'value');
    await device.complete(received);
  },
);
