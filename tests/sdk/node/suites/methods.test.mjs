// Direct methods: azure-iothub calls, azure-iot-device answers over MQTT and AMQP, and callers hear when nobody does.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import common from 'azure-iot-common';
import { CREDENTIALS, TRANSPORTS, connect, connectModule, create, enter, invoke, registryOf } from '../devices.mjs';
import { check, client } from '../muster.mjs';
import { within } from '../process.mjs';

const MQTT = client('azure-iot-device-mqtt');
const AMQP = client('azure-iot-device-amqp');
const DEVICES = { mqtt: MQTT, 'mqtt-ws': MQTT, amqp: AMQP, 'amqp-ws': AMQP };
const SERVICE = client('azure-iothub');
const CONNECT_S = 20;
const BACK_S = 20;
// Far below the shortest time-out of a call.
const AT_ONCE_MS = 3_000;

/** Has `answer` make the status and the payload of the response to each request for a method. */
function answering(hub, name, answer) {
  hub.onDeviceMethod(name, (request, response) => response.send(...answer(request.payload), () => {}));
}

/** The status, the header's code and what the body says of a call that failed. */
async function refusal(call) {
  const error = await call.then(() => assert.fail('it was answered'), (failure) => failure);
  const { statusCode, headers } = error.response;
  return { name: error.name, status: statusCode, code: headers['iothub-errorcode'], body: JSON.parse(error.responseBody) };
}

for (const transport of Object.keys(TRANSPORTS)) {
  const shows = (feature, credential = 'symmetric key') => ({ ...DEVICES[transport], transport, credential, feature });

  for (const credential of CREDENTIALS) {
    check(
      `a device answers with a status and a payload of its own over ${transport} by ${credential}`,
      shows('direct methods: status and payload both ways', credential),
      async (muster) => {
        const hub = await enter(muster, transport, credential, 'dev-1');
        answering(hub, 'echo', (payload) => [200, payload]);
        answering(hub, 'fail', (payload) => [-500, { why: payload }]);
        answering(hub, 'void', (payload) => [payload === null ? 204 : 400]);
        const said = { b: 1.5, a: [null, true, 'é\n'], big: 4503599627370495 };
        // The client does not tell when it listens: the call waits for it.
        const call = (methodName, payload) => invoke(muster, 'dev-1', { methodName, payload, connectTimeoutInSeconds: CONNECT_S });
        assert.deepEqual(await call('echo', said), { status: 200, payload: said });
        assert.deepEqual(await call('fail', [1]), { status: -500, payload: { why: [1] } });
        answering(hub, 'thermostat1*echo', (payload) => [200, payload]);
        assert.deepEqual(await call('thermostat1*echo', 2), { status: 200, payload: 2 });
        assert.deepEqual(await call('void'), { status: 204, payload: null });
      },
    );
  }

  check(
    `a module answers, and its device does not, over ${transport}`,
    shows('direct methods: of a module'),
    async (muster) => {
      await create(muster, 'dev-1');
      const module = await connectModule(muster, transport, 'dev-1', 'mod-1');
      module.onMethod('echo', (request, response) => response.send(201, request.payload, () => {}));
      const call = { methodName: 'echo', payload: { a: 1 } };
      const answer = await invoke(muster, 'dev-1', 'mod-1', { ...call, connectTimeoutInSeconds: CONNECT_S });
      assert.deepEqual(answer, { status: 201, payload: { a: 1 } });
      assert.equal((await refusal(invoke(muster, 'dev-1', call))).code, 'DeviceNotOnline');
    },
  );

  check(
    `a device that disconnects in the middle ends the call over ${transport}`,
    shows('direct methods: gone in the middle'),
    async (muster) => {
      const hub = await connect(muster, transport, 'dev-1', await create(muster, 'dev-1'));
      hub.setRetryPolicy(new common.NoRetry());
      const calls = new EventEmitter();
      hub.onDeviceMethod('reboot', () => calls.emit('told'));
      const told = once(calls, 'told').then(() => hub.close());
      const call = refusal(invoke(muster, 'dev-1', { methodName: 'reboot', connectTimeoutInSeconds: CONNECT_S }));
      await told;
      const { status, code, body } = await within(AT_ONCE_MS, 'the call ends', call);
      assert.deepEqual([status, code, JSON.parse(body.Message).errorCode], [504, 'GatewayTimeout', 504101]);
    },
  );

  check(
    `a device is called after a restart over ${transport}`,
    shows('direct methods: after a restart'),
    async (muster) => {
      const hub = await connect(muster, transport, 'dev-1', await create(muster, 'dev-1'));
      answering(hub, 'echo', (payload) => [200, payload]);
      const call = (payload, connectTimeoutInSeconds) =>
        invoke(muster, 'dev-1', { methodName: 'echo', payload, connectTimeoutInSeconds });
      assert.deepEqual(await call(1, CONNECT_S), { status: 200, payload: 1 });
      await muster.restart();
      assert.deepEqual(await call(2, BACK_S), { status: 200, payload: 2 });
    },
  );
}

check(
  'callers hear why nothing comes back',
  { ...SERVICE, transport: 'https', credential: 'policy', feature: 'direct methods: offline, unknown, silent' },
  async (muster) => {
    const hub = await connect(muster, 'mqtt', 'dev-1', await create(muster, 'dev-1'));
    const offline = await refusal(invoke(muster, 'dev-1', { methodName: 'reboot' }));
    const { errorCode, message, info } = JSON.parse(offline.body.Message);
    assert.deepEqual([offline.status, offline.code, errorCode], [404, 'DeviceNotOnline', 404103]);
    assert.deepEqual([message, info], ['Timed out waiting for device to connect.', { timeout: '00:00:00' }]);
    const unknown = await refusal(invoke(muster, 'dev-2', { methodName: 'reboot' }));
    assert.deepEqual([unknown.name, unknown.code], ['DeviceNotFoundError', 'DeviceNotFound']);
    await registryOf(muster).addModule({ deviceId: 'dev-1', moduleId: 'mod-1' });
    const module = await refusal(invoke(muster, 'dev-1', 'mod-1', { methodName: 'reboot' }));
    assert.deepEqual([module.status, module.code], [404, 'DeviceNotOnline']);
    hub.onDeviceMethod('sleep', () => {});
    const limits = { connectTimeoutInSeconds: CONNECT_S, responseTimeoutInSeconds: 5 };
    const silent = await refusal(invoke(muster, 'dev-1', { methodName: 'sleep', ...limits }));
    const waited = JSON.parse(silent.body.Message);
    assert.deepEqual([silent.status, silent.code, waited.errorCode], [504, 'GatewayTimeout', 504101]);
    assert.deepEqual(waited.info, { timeout: '00:00:05' });
  },
);
