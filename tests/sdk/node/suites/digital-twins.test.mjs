// Digital twins: azure-iothub reads, patches and commands, azure-iot-device is a Plug and Play device by its conventions.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { TRANSPORTS, connect, create, digitalTwinsOf, registryOf, report, untilTold } from '../devices.mjs';
import { check, client } from '../muster.mjs';

const SERVICE = client('azure-iothub');
const MODEL = 'dtmi:com:example:TemperatureController;2';
const CONNECT_S = 20;
// Of a client that announces a model: its other transports have no way to.
const ANNOUNCED_OVER = ['mqtt', 'mqtt-ws'];

/** Connects a device that announces a model, where its transport can. */
const announce = (muster, transport, key) => connect(muster, transport, 'dev-1', key, { modelId: MODEL });

for (const transport of Object.keys(TRANSPORTS)) {
  const shows = { ...client(`azure-iot-device-${transport.split('-')[0]}`), transport, credential: 'symmetric key' };

  check(
    `a device and its digital twin agree over ${transport}`,
    { ...shows, feature: 'Plug and Play: properties and components, wanted and acknowledged' },
    async (muster) => {
      const hub = await announce(muster, transport, await create(muster, 'dev-1'));
      const twin = await hub.getTwin();
      const heard = new EventEmitter();
      twin.on('properties.desired.thermostat1', (component) => heard.emit('told', component));
      await report(twin, { serialNumber: 'alwinexlepaho8329', thermostat1: { __t: 'c', maxTempSinceLastReboot: 25.3 } });
      const twins = digitalTwinsOf(muster);
      const read = await twins.getDigitalTwin('dev-1');
      assert.equal(read.$metadata.$model, ANNOUNCED_OVER.includes(transport) ? MODEL : '');
      assert.equal(read.thermostat1.maxTempSinceLastReboot, 25.3);
      let wanted = 20;
      const change = () => {
        wanted += 0.5;
        return twins.updateDigitalTwin('dev-1', [{ op: 'add', path: '/thermostat1/targetTemperature', value: wanted }]);
      };
      await untilTold(change, once(heard, 'told'));
      await change();
      const latest = () => twin.properties.desired.thermostat1;
      while (latest().targetTemperature !== wanted) await once(heard, 'told');
      const { __t, targetTemperature } = latest();
      assert.equal(__t, 'c');
      const said = { value: targetTemperature, ac: 200, av: twin.properties.desired.$version, ad: 'done' };
      await report(twin, { thermostat1: { __t: 'c', targetTemperature: said } });
      const { thermostat1, $metadata } = await twins.getDigitalTwin('dev-1');
      assert.equal(thermostat1.targetTemperature, targetTemperature);
      const { ackCode, ackDescription, ackVersion } = thermostat1.$metadata.targetTemperature;
      assert.deepEqual([ackCode, ackDescription, ackVersion], [200, 'done', said.av]);
      assert.ok($metadata.serialNumber.lastUpdateTime);
    },
  );
}

for (const transport of Object.keys(TRANSPORTS)) {
  check(
    `a device carries out commands over ${transport}`,
    {
      ...client(`azure-iot-device-${transport.split('-')[0]}`),
      transport,
      credential: 'symmetric key',
      feature: 'Plug and Play: commands of the device and of its components',
    },
    async (muster) => {
      const hub = await announce(muster, transport, await create(muster, 'dev-1'));
      hub.onDeviceMethod('reboot', ({ payload }, response) => response.send(202, { delay: payload }, () => {}));
      hub.onDeviceMethod('thermostat1*getMaxMinReport', ({ payload }, response) =>
        response.send(-1, { since: payload }, () => {}),
      );
      const twins = digitalTwinsOf(muster);
      // The client does not tell when it listens: the command waits for it.
      const rebooted = await twins.invokeCommand('dev-1', 'reboot', 5, { connectTimeoutInSeconds: CONNECT_S });
      assert.deepEqual([rebooted.xMsCommandStatuscode, rebooted.body], [202, { delay: 5 }]);
      assert.match(rebooted.xMsRequestId, /^[0-9a-f-]{36}$/);
      const options = { connectTimeoutInSeconds: CONNECT_S, responseTimeoutInSeconds: 10 };
      const told = await twins.invokeComponentCommand('dev-1', 'thermostat1', 'getMaxMinReport', 'noon', options);
      assert.deepEqual([told.xMsCommandStatuscode, told.body], [-1, { since: 'noon' }]);
    },
  );
}

check(
  'a patch with a stale etag changes nothing',
  { ...SERVICE, transport: 'https', credential: 'policy', feature: 'digital twins: etags, errors' },
  async (muster) => {
    await create(muster, 'dev-1');
    const twins = digitalTwinsOf(muster);
    const patch = (value) => [{ op: 'replace', path: '/fanSpeed', value }];
    const etag = async () => (await twins.getDigitalTwin('dev-1'))._response.parsedHeaders.eTag;
    const first = await etag();
    await twins.updateDigitalTwin('dev-1', patch(1), first);
    await assert.rejects(twins.updateDigitalTwin('dev-1', patch(2), first), { statusCode: 412 });
    await twins.updateDigitalTwin('dev-1', patch(3), await etag());
    await assert.rejects(twins.updateDigitalTwin('dev-1', [{ op: 'add', path: '/fanSpeed/a', value: 1 }]), { statusCode: 400 });
    await assert.rejects(twins.getDigitalTwin('dev-2'), { statusCode: 404 });
    const { responseBody } = await registryOf(muster).getTwin('dev-1');
    assert.equal(responseBody.properties.desired.fanSpeed, 3);
  },
);
