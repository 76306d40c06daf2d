// azure-iot-device at a hub, over MQTT and AMQP: telemetry, twins, desired properties, refusals, and a restart in the middle.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import common from 'azure-iot-common';
import device from 'azure-iot-device';
import {
  CREDENTIALS, TRANSPORTS, connect, connectByCertificate, connectModule, connectWithTokens, create,
  createModuleByCertificate, enter, enterModuleByCertificate, invoke, provision, registryOf, report, section, untilTold,
} from '../devices.mjs';
import { check, client } from '../muster.mjs';
import { within } from '../process.mjs';
import { enroll, enrollGroup, registerByCertificate } from '../provisioning.mjs';

const MQTT = client('azure-iot-device-mqtt');
const AMQP = client('azure-iot-device-amqp');
const DEVICES = { mqtt: MQTT, 'mqtt-ws': MQTT, amqp: AMQP, 'amqp-ws': AMQP };
const OTHER_KEY = Buffer.from('another key of thirty-two bytes!').toString('base64');
const OTHER_KEYS = { primaryKey: OTHER_KEY, secondaryKey: OTHER_KEY };
const NUMBERS = Array.from({ length: 100 }, (_, index) => index);
const TOLD_MS = 20_000;
const BACK_MS = 20_000;
const TOKEN_S = 4;
// A device whose right is gone is cut off within a second.
const CUT_OFF_MS = 1_000;

/** Keeps the desired patches that a device is told of, and waits until there are some number of them. */
class Told {
  #patches = [];
  #heard = new EventEmitter();
  #version;

  /** Subscribes, and returns when the hub has granted it: requests of a connection are answered in order. */
  static async of(twin) {
    const told = new Told();
    // Once for all: this client calls every listener that is added with the whole section first.
    twin.on('properties.desired', (patch) => told.#hear(patch));
    await twin.get();
    told.#version = twin.properties.desired.$version;
    return told;
  }

  #hear(patch) {
    this.#patches.push({ ...patch });
    this.#heard.emit('patch');
  }

  /** Has `change` made until the device is told of it: of what changes before it has subscribed, nobody tells it. */
  async afresh(change) {
    await untilTold(change, once(this.#heard, 'patch'));
    return this.#patches.at(-1);
  }

  /** The patches newer than the twin that the device had read, once there are `count` of them. */
  async patches(count) {
    const fresh = () => this.#patches.filter((patch) => patch.$version > this.#version);
    const enough = async () => {
      while (fresh().length < count) await once(this.#heard, 'patch');
      return fresh();
    };
    return within(TOLD_MS, `${count} desired patches arrive`, enough());
  }
}

/** The module `mod-1` of `dev-1` sends, reports and is told of its own twin. */
async function live(muster, module) {
  await module.sendEvent(new device.Message('from the module'));
  const twin = await module.getTwin();
  await report(twin, { running: true });
  const told = await Told.of(twin);
  assert.deepEqual(section(twin, 'reported'), { running: true, $version: 2 });
  await registryOf(muster).updateModuleTwin('dev-1', 'mod-1', { properties: { desired: { pace: 1.5 } } }, '*');
  assert.deepEqual(await told.patches(1), [{ pace: 1.5, $version: 2 }]);
  const [{ deviceId, moduleId, body }] = await muster.telemetry(1);
  assert.deepEqual([deviceId, moduleId, body], ['dev-1', 'mod-1', 'from the module']);
}

/** Connects and sends a message: over AMQP a certificate is judged with the first link, which belongs to the message. */
async function sendByCertificate(muster, transport, name, certificate) {
  const hub = await connectByCertificate(muster, transport, name, certificate);
  return hub.sendEvent(new device.Message('25.1'));
}

for (const transport of Object.keys(TRANSPORTS)) {
  const shows = (credential, feature) => ({ ...DEVICES[transport], transport, credential, feature });

  check(
    `a provisioned device sends and reports over ${transport}`,
    shows('symmetric key', 'connect, telemetry with properties, twin get, reported patch'),
    async (muster) => {
      const desired = { temperature: 50.5, big: 4503599627370495 };
      const key = await provision(muster, 'dev-1', { tags: { place: 'cave' }, properties: { desired } });
      const hub = await connect(muster, transport, 'dev-1', key);
      const message = new device.Message('25.1');
      message.contentType = 'application/json';
      message.messageId = 'm/1';
      message.properties.add('alert', 'no & yes/maybe');
      assert.equal((await hub.sendEvent(message)).constructor.name, 'MessageEnqueued');
      const twin = await hub.getTwin();
      assert.deepEqual(section(twin, 'desired'), { ...desired, $version: 1 });
      await report(twin, { temperature: 50.5, nested: { a: 1 } });
      await twin.get();
      assert.deepEqual(section(twin, 'reported'), { temperature: 50.5, nested: { a: 1 }, $version: 2 });
      await report(twin, { nested: null });
      await twin.get();
      assert.deepEqual(section(twin, 'reported'), { temperature: 50.5, $version: 3 });
    },
  );

  for (const credential of CREDENTIALS) {
    check(
      `telemetry arrives in order, with its properties, over ${transport} by ${credential}`,
      shows(credential, 'telemetry as the monitor shows it'),
      async (muster) => {
        const hub = await enter(muster, transport, credential, 'dev-1');
        const message = new device.Message(JSON.stringify({ temperature: 50.123 }));
        Object.assign(message, { messageId: 'm/1', correlationId: 'c 1', contentType: 'application/json' });
        message.contentEncoding = 'utf-8';
        message.properties.add('alert', 'no & yes/maybe');
        message.properties.add('ünï', 'ç=d');
        await hub.sendEvent(message);
        await Promise.all(NUMBERS.map((number) => hub.sendEvent(new device.Message(`number ${number}`))));
        const [first, ...others] = await muster.telemetry(1 + NUMBERS.length);
        assert.deepEqual([first.deviceId, first.body], ['dev-1', { temperature: 50.123 }]);
        assert.deepEqual(first.properties, { alert: 'no & yes/maybe', ünï: 'ç=d' });
        const { messageId, correlationId, contentType, contentEncoding } = first.systemProperties;
        const system = [messageId, correlationId, contentType, contentEncoding];
        assert.deepEqual(system, ['m/1', 'c 1', 'application/json', 'utf-8']);
        assert.deepEqual(others.map(({ body }) => body), NUMBERS.map((number) => `number ${number}`));
      },
    );
  }

  check(
    `a reported patch that breaks a rule is refused over ${transport}`,
    shows('symmetric key', 'a reported patch that breaks a rule is refused'),
    async (muster) => {
      const hub = await connect(muster, transport, 'dev-1', await create(muster, 'dev-1'));
      const twin = await hub.getTwin();
      await assert.rejects(report(twin, { 'a key with spaces': 1 }), /a key with spaces/);
      await twin.get();
      assert.deepEqual(section(twin, 'reported'), { $version: 1 });
    },
  );

  check(
    `devices connect over ${transport} with the certificates they were provisioned by`,
    shows('X.509', 'provision self-signed and through an intermediate, connect with the same certificate'),
    async (muster) => {
      await muster.certificate('root', 'root');
      await muster.prove('root');
      await muster.certificate('intermediate', 'factory', '--issuer', 'root');
      await enrollGroup(muster, 'caves', { type: 'x509', x509: { caReferences: { primary: 'root' } } });
      const own = await muster.certificate('device', 'dev-x');
      const x509 = { clientCertificates: { primary: { certificate: own.pem } } };
      await enroll(muster, 'dev-x', { attestation: { type: 'x509', x509 } });
      const certificates = { 'dev-x': own, 'cave-1': await muster.certificate('device', 'cave-1', '--issuer', 'factory') };
      await Promise.all(Object.entries(certificates).map(async ([name, certificate]) => {
        await registerByCertificate(muster, transport, name, certificate);
        const hub = await connectByCertificate(muster, transport, name, certificate);
        await hub.sendEvent(new device.Message('25.1'));
        assert.deepEqual(section(await hub.getTwin(), 'reported'), { $version: 1 });
      }));
      const impostor = await muster.certificate('device', 'dev-x', '--file', 'impostor');
      await assert.rejects(sendByCertificate(muster, transport, 'dev-x', impostor), { name: 'UnauthorizedError' });
    },
  );

  check(
    `a device connects over ${transport} with a certificate that a CA of the hub stands for`,
    shows('X.509', 'connect, by a CA certificate of the hub, through an intermediate'),
    async (muster) => {
      const hub = ['--hub', muster.hub.name];
      await muster.certificate('root', 'root');
      await muster.certificate('intermediate', 'factory', '--issuer', 'root');
      const certificate = await muster.certificate('device', 'dev-ca', '--issuer', 'factory');
      await muster.certificate('root', 'other');
      const strange = await muster.certificate('device', 'dev-ca', '--issuer', 'other', '--file', 'strange');
      const sending = (evidence) => sendByCertificate(muster, transport, 'dev-ca', evidence);
      const refused = { name: 'UnauthorizedError' };
      await create(muster, 'dev-ca', { authentication: { type: 'certificateAuthority' } });
      await assert.rejects(sending(certificate), refused);
      assert.equal((await muster.prove('root', hub)).properties.isVerified, true);
      await assert.rejects(sending(strange), refused);
      await sending(certificate);
      await muster.command('certificate', 'delete', 'root', ...hub);
      await assert.rejects(sending(certificate), refused);
    },
  );

  for (const credential of CREDENTIALS) {
    check(
      `desired properties reach the device in order over ${transport} by ${credential}`,
      shows(credential, 'twin get, reported patch, desired callback in order'),
      async (muster) => {
        const twin = await (await enter(muster, transport, credential, 'dev-1')).getTwin();
        await report(twin, { fan: true });
        const told = await Told.of(twin);
        const registry = registryOf(muster);
        for (const temperature of [50, 51, 52]) {
          await registry.updateTwin('dev-1', { properties: { desired: { temperature } } }, '*');
        }
        await registry.updateTwin('dev-1', { properties: { desired: { temperature: null } } }, '*');
        assert.deepEqual(await told.patches(4), [
          { temperature: 50, $version: 2 },
          { temperature: 51, $version: 3 },
          { temperature: 52, $version: 4 },
          { temperature: null, $version: 5 },
        ]);
        await twin.get();
        assert.deepEqual(section(twin, 'reported'), { fan: true, $version: 2 });
      },
    );
  }

  check(
    `a module sends, reports and is told of its own twin over ${transport}`,
    shows('symmetric key', 'modules: telemetry, twin, desired callback'),
    async (muster) => {
      await create(muster, 'dev-1');
      const module = await connectModule(muster, transport, 'dev-1', 'mod-1');
      await live(muster, module);
    },
  );

  check(
    `a module with a certificate sends, reports, is told and is called over ${transport}`,
    shows('X.509', 'modules: telemetry, twin, desired callback, direct methods'),
    async (muster) => {
      await create(muster, 'dev-1');
      const own = await createModuleByCertificate(muster, 'dev-1', 'mod-1');
      const entered = (certificate) => enterModuleByCertificate(muster, transport, 'dev-1', 'mod-1', certificate);
      const impostor = await muster.certificate('device', 'dev-1.mod-1', '--file', 'impostor');
      // Over AMQP a certificate is judged with the first link, which belongs to the message.
      const sending = entered(impostor).then((module) => module.sendEvent(new device.Message('from another')));
      await assert.rejects(sending, { name: 'UnauthorizedError' });
      const module = await entered(own);
      await live(muster, module);
      module.onMethod('echo', (request, response) => response.send(201, request.payload, () => {}));
      const call = { methodName: 'echo', payload: { a: 1 }, connectTimeoutInSeconds: BACK_MS / 1_000 };
      assert.deepEqual(await invoke(muster, 'dev-1', 'mod-1', call), { status: 201, payload: { a: 1 } });
    },
  );

  // Over AMQP the client subscribes again by itself, at a time that it does not tell.
  if (transport.startsWith('mqtt')) {
    check(
      `a device comes back after a restart without subscribing again over ${transport}`,
      shows('symmetric key', 'reconnect after a server restart'),
      async (muster) => {
        const hub = await connect(muster, transport, 'dev-1', await create(muster, 'dev-1'));
        const twin = await hub.getTwin();
        await report(twin, { before: true });
        const told = await Told.of(twin);
        const back = once(hub, 'connect');
        await muster.restart();
        await within(BACK_MS, 'the device comes back', back);
        // This client subscribes to neither of its twin topics twice: what arrives, arrives because the hub remembered.
        await registryOf(muster).updateTwin('dev-1', { properties: { desired: { after: true } } }, '*');
        assert.deepEqual(await told.patches(1), [{ after: true, $version: 2 }]);
        await twin.get();
        assert.deepEqual(section(twin, 'reported'), { before: true, $version: 2 });
        await hub.sendEvent(new device.Message('after'));
      },
    );
  }

  check(
    `a wrong key is refused by the hub over ${transport}`,
    shows('symmetric key', 'a wrong key is refused by the hub'),
    async (muster) => {
      await create(muster, 'dev-1');
      await assert.rejects(connect(muster, transport, 'dev-1', OTHER_KEY), { name: 'UnauthorizedError' });
    },
  );
}

for (const transport of ['amqp', 'amqp-ws']) {
  check(
    `a device that renews its token stays connected over ${transport}`,
    { ...AMQP, transport, credential: 'symmetric key', feature: 'token renewal on a living connection' },
    async (muster) => {
      const key = await create(muster, 'dev-1');
      const hub = await connectWithTokens(muster, transport, 'dev-1', key, TOKEN_S);
      hub.setRetryPolicy(new common.NoRetry());
      const lost = once(hub, 'disconnect').then(() => assert.fail('the device was cut off'));
      await hub.sendEvent(new device.Message('first'));
      const told = await Told.of(await hub.getTwin());
      // Past the end of the token that it came with, and the hub's leeway of five seconds.
      const past = Date.now() + (TOKEN_S + 8) * 1_000;
      while (Date.now() < past) await Promise.race([lost, hub.sendEvent(new device.Message('another'))]);
      await registryOf(muster).updateTwin('dev-1', { properties: { desired: { after: true } } }, '*');
      assert.deepEqual(await told.patches(1), [{ after: true, $version: 2 }]);
    },
  );

  check(
    `a device comes back after a restart to its twin, its methods and its messages over ${transport}`,
    { ...AMQP, transport, credential: 'symmetric key', feature: 'reconnect after a server restart' },
    async (muster) => {
      const hub = await connect(muster, transport, 'dev-1', await create(muster, 'dev-1'));
      hub.onDeviceMethod('echo', (request, response) => response.send(200, request.payload, () => {}));
      const messages = new EventEmitter();
      hub.on('message', (message) => hub.complete(message, () => messages.emit('done', message.getData().toString())));
      const twin = await hub.getTwin();
      await report(twin, { before: true });
      const told = await Told.of(twin);
      await muster.restart();
      const call = { methodName: 'echo', payload: 'after', connectTimeoutInSeconds: BACK_MS / 1_000 };
      assert.deepEqual(await invoke(muster, 'dev-1', call), { status: 200, payload: 'after' });
      const done = once(messages, 'done');
      await muster.command('message', 'send', 'dev-1', 'while it comes back');
      assert.deepEqual(await within(BACK_MS, 'the message arrives', done), ['while it comes back']);
      // This client subscribes again by itself, at a time that it does not tell.
      let beat = 0;
      const change = () => registryOf(muster).updateTwin('dev-1', { properties: { desired: { beat: beat += 1 } } }, '*');
      const patch = await within(BACK_MS, 'the device is told', told.afresh(change));
      assert.deepEqual(patch, { beat: patch.beat, $version: 1 + patch.beat });
      await twin.get();
      assert.deepEqual(section(twin, 'reported'), { before: true, $version: 2 });
      await hub.sendEvent(new device.Message('after'));
    },
  );

  check(
    `a message beyond the limit is refused over ${transport}`,
    { ...AMQP, transport, credential: 'symmetric key', feature: 'a message that is too large is refused' },
    async (muster) => {
      const hub = await connect(muster, transport, 'dev-1', await create(muster, 'dev-1'));
      hub.setRetryPolicy(new common.NoRetry());
      await assert.rejects(hub.sendEvent(new device.Message('x'.repeat(300_000))), { name: 'MessageTooLargeError' });
    },
  );
}

const CUTS = {
  disabled: (registry, identity) => registry.update({ ...identity, status: 'disabled' }),
  're-keyed': (registry, { deviceId }) => registry.update({ deviceId, authentication: { symmetricKey: OTHER_KEYS } }),
  deleted: (registry, { deviceId }) => registry.delete(deviceId),
};

for (const [cut, change] of Object.entries(CUTS)) {
  for (const transport of Object.keys(TRANSPORTS)) {
    check(
      `a device that is ${cut} is cut off over ${transport}`,
      { ...DEVICES[transport], transport, credential: 'symmetric key', feature: `cut off within a second when ${cut}` },
      async (muster) => {
        const hub = await connect(muster, transport, 'dev-1', await create(muster, 'dev-1'));
        hub.setRetryPolicy(new common.NoRetry());
        // Over AMQP the hub knows a device by its links, and this client makes none before it is needed.
        await hub.sendEvent(new device.Message('25.1'));
        const registry = registryOf(muster);
        const identity = (await registry.get('dev-1')).responseBody;
        const gone = once(hub, 'disconnect');
        await change(registry, identity);
        await within(CUT_OFF_MS, 'the device is cut off', gone);
      },
    );
  }
}
