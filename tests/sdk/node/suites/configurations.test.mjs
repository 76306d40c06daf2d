// Configurations: azure-iothub puts content into the twins that fulfil a condition.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { create, enterModule, registryOf, report } from '../devices.mjs';
import { check, client } from '../muster.mjs';

const SERVICE = { ...client('azure-iothub'), transport: 'https', credential: 'policy' };
const WITHIN_MS = 30_000;

/** Asks until it is so: nobody tells when a configuration has come everywhere. */
async function until(found, wanted) {
  for (const end = Date.now() + WITHIN_MS; Date.now() < end; ) {
    try {
      return assert.deepEqual(await found(), wanted);
    } catch (failure) {
      if (failure.name !== 'AssertionError') throw failure;
    }
  }
  return assert.deepEqual(await found(), wanted);
}

check(
  'a configuration is applied, updated by its etag, and withdrawn',
  { ...SERVICE, feature: 'configurations: created, applied, updated, listed, removed' },
  async (muster) => {
    const registry = registryOf(muster);
    for (const name of ['dev-1', 'dev-2']) await create(muster, name);
    const speed = async (name) => (await registry.getTwin(name)).responseBody.properties.desired.fan?.speed;
    const wanted = {
      id: 'fans',
      content: { deviceContent: { 'properties.desired.fan': { speed: 7 } } },
      metrics: { queries: { fast: 'SELECT deviceId FROM devices WHERE properties.desired.fan.speed > 5' } },
      targetCondition: "deviceId = 'dev-1'",
      priority: 5,
    };
    const { responseBody: made } = await registry.addConfiguration(wanted);
    assert.deepEqual([made.id, made.schemaVersion, made.priority], ['fans', '1.0', 5]);
    const read = async () => (await registry.getConfiguration('fans')).responseBody;
    await until(async () => (await read()).systemMetrics.results, { targetedCount: 1, appliedCount: 1 });
    assert.deepEqual([await speed('dev-1'), await speed('dev-2')], [7, undefined]);
    assert.deepEqual((await read()).metrics.results, { fast: 1 });
    const { responseBody: twin } = await registry.getTwin('dev-1');
    assert.deepEqual(twin.configurations, { fans: { status: 'Applied' } });

    const changed = await read();
    changed.targetCondition = '*';
    await registry.updateConfiguration(changed);
    await until(() => speed('dev-2'), 7);
    const stale = await registry.updateConfiguration(changed).then(() => assert.fail('it is stale'), (error) => error);
    assert.equal(stale.response.statusCode, 412);
    await registry.updateConfiguration({ ...changed, targetCondition: "deviceId = 'dev-2'" }, true);
    await until(() => speed('dev-1'), undefined);
    const { responseBody: listed } = await registry.getConfigurations();
    assert.deepEqual(listed.map(({ id }) => id), ['fans']);
    await registry.removeConfiguration('fans');
    await until(() => speed('dev-2'), undefined);
  },
);

check(
  'content is applied to one edge device',
  { ...SERVICE, feature: 'deployments: content for one edge device' },
  async (muster) => {
    const registry = registryOf(muster);
    await create(muster, 'edge-1', { capabilities: { iotEdge: true } });
    const content = {
      modulesContent: {
        $edgeAgent: { 'properties.desired': { modules: { sensor: {} } } },
        sensor: { 'properties.desired.rate': 5 },
      },
    };
    await registry.applyConfigurationContentOnDevice('edge-1', content);
    const { responseBody: twin } = await registry.getModuleTwin('edge-1', 'sensor');
    assert.equal(twin.properties.desired.rate, 5);
    await create(muster, 'dev-1');
    const refused = registry.applyConfigurationContentOnDevice('dev-1', content);
    const error = await refused.then(() => assert.fail('it is no edge device'), (failure) => failure);
    assert.equal(error.response.statusCode, 400);
  },
);

check(
  'what an edge agent reports of a deployment is counted',
  { ...SERVICE, feature: 'deployments: what edge agents report of them is counted' },
  async (muster) => {
    const registry = registryOf(muster);
    await create(muster, 'edge-1', { capabilities: { iotEdge: true } });
    const modulesContent = { $edgeAgent: { 'properties.desired.modules.sensor': { version: '1.0' } } };
    await registry.addConfiguration({ id: 'deployment', content: { modulesContent }, targetCondition: '*', priority: 1 });
    const counts = async () => (await registry.getConfiguration('deployment')).responseBody.systemMetrics.results;
    const counted = (reportedSuccessfulCount, reportedFailedCount) => ({
      targetedCount: 1, appliedCount: 1, reportedSuccessfulCount, reportedFailedCount,
    });
    await until(counts, counted(0, 0));
    const { responseBody: told } = await registry.getModuleTwin('edge-1', '$edgeAgent');
    assert.deepEqual(told.configurations, { deployment: { status: 'Applied' } });
    // The device's runtime gives the agent its keys.
    const own = { deviceId: 'edge-1', moduleId: '$edgeAgent', authentication: { type: 'sas' } };
    const agent = await enterModule(muster, 'mqtt', (await registry.updateModule(own, true)).responseBody);
    const twin = await agent.getTwin();
    const lastDesiredVersion = twin.properties.desired.$version;
    for (const [code, expected] of [[200, counted(1, 0)], [500, counted(0, 1)]]) {
      await report(twin, { lastDesiredVersion, lastDesiredStatus: { code } });
      assert.deepEqual(await counts(), expected);
    }
  },
);
