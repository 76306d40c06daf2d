// rhea, an AMQP client that nobody made for Azure, at the links of a hub: as a device, a back-end program, a reader.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { once } from 'node:events';
import rhea from 'rhea';
import { create, invoke, registryOf } from '../devices.mjs';
import { check, client } from '../muster.mjs';
import { data, Peer, signature, text } from '../peer.mjs';
import { within } from '../process.mjs';

const RHEA = client('rhea');
const DEVICE = 'dev-1';
const MODULE = 'mod-1';
const ACCEPTED = { outcome: 'accepted', condition: undefined };
// The message format of a batch, and rhea's number for a sender that settles everything before it is sent.
const BATCH = 0x80013700;
const SETTLED = 1;
const CREDIT = 5;
const HEARTBEATS = 3;
const IDLE_MS = 2_000;
const SILENCE_S = 2;
// From one end's silence to the other's word, with room for a slow machine.
const ENDED_MS = 8_000;
const CREDENTIALS = { CBS: 'a token put at $cbs', PLAIN: 'a token as the password of PLAIN' };

/** A device's connection, proven, or a module's. */
async function asDevice(muster, way, key, module) {
  const { hostName } = muster.hub;
  const resource = `${hostName}/devices/${DEVICE}${module === undefined ? '' : `/modules/${module}`}`;
  const token = signature(resource, Buffer.from(key, 'base64'));
  const own = module === undefined ? DEVICE : `${DEVICE}/${module}`;
  if (way === 'PLAIN') return Peer.open(muster, hostName, { username: `${own}@sas.${hostName}`, password: token });
  const peer = await Peer.open(muster, hostName);
  assert.equal(await peer.putToken(resource, token), 200);
  return peer;
}

async function keyOf(muster, policy) {
  const shown = await muster.command('policy', 'show', policy, '--hub', muster.hub.name, '--show-keys');
  return shown.primaryKey;
}

/** A back-end program's connection, proven. */
async function asService(muster, way, policy = 'service') {
  const { hostName } = muster.hub;
  const token = signature(hostName, Buffer.from(await keyOf(muster, policy), 'base64'), policy);
  const username = `${policy}@sas.root.${hostName.split('.')[0]}`;
  if (way === 'PLAIN') return Peer.open(muster, hostName, { username, password: token });
  const peer = await Peer.open(muster, hostName);
  assert.equal(await peer.putToken(hostName, token), 200);
  return peer;
}

/** The connection of a reader of telemetry, proven by the text of a key, or as any back-end program is. */
async function asReader(muster, way) {
  if (way === 'PLAIN') return asService(muster, way);
  const audience = `sb://${muster.hub.hostName}/${muster.hub.name}`;
  const peer = await Peer.open(muster, muster.hub.hostName);
  assert.equal(await peer.putToken(audience, signature(audience, await keyOf(muster, 'service'), 'service')), 200);
  return peer;
}

/** The partition of an event hub that holds something; there is one. */
async function filled(reader, name) {
  const describe = async (said) => {
    const asked = { operation: 'READ', name, ...said };
    const answer = await reader.call('$management', { application_properties: asked });
    assert.equal(answer.application_properties['status-code'], 200);
    return answer.body;
  };
  const { partition_ids: partitions } = await describe({ type: 'com.microsoft:eventhub' });
  const held = [];
  for (const partition of partitions) held.push(await describe({ type: 'com.microsoft:partition', partition }));
  const [{ partition }] = held.filter((one) => !one.is_partition_empty);
  return partition;
}

for (const [way, credential] of Object.entries(CREDENTIALS)) {
  const shows = (feature) => ({ ...RHEA, transport: 'amqp', credential, feature });

  const sends = `a device that was not made for Azure sends and has its twin, by ${way}`;
  check(sends, shows('telemetry, twin'), async (muster) => {
    const peer = await asDevice(muster, way, await create(muster, DEVICE));
    const telemetry = await peer.sender(`/devices/${DEVICE}/messages/events`);
    const said = { message_id: 'm-1', application_properties: { alert: 'yes' } };
    assert.deepEqual(await peer.send(telemetry, { ...said, body: data('first') }), ACCEPTED);
    assert.deepEqual(await peer.send(telemetry, { body: 'a text' }), ACCEPTED);
    const [first, second] = await muster.telemetry(2);
    assert.deepEqual([first.body, first.properties, second.body], ['first', { alert: 'yes' }, 'a text']);

    const address = `/devices/${DEVICE}/twin`;
    const answers = peer.receiver(address);
    const questions = await peer.sender(address);
    const ask = async (operation, resource, body = ' ') => {
      const message_annotations = resource === undefined ? { operation } : { operation, resource };
      await peer.send(questions, { message_annotations, correlation_id: `c ${operation}`, body: data(body) });
      const answer = await answers.take();
      assert.equal(answer.correlation_id, `c ${operation}`);
      return answer;
    };
    const twin = await ask('GET');
    assert.equal(twin.message_annotations.status, 200);
    assert.deepEqual(Object.keys(JSON.parse(text(twin))).sort(), ['desired', 'reported']);
    assert.equal((await ask('PUT', '/notifications/twin/properties/desired')).message_annotations.status, 200);
    const reported = await ask('PATCH', '/properties/reported', '{"temperature": 21}');
    const { version, status } = reported.message_annotations;
    assert.deepEqual([version, Math.floor(status / 100)], [2, 2]);
    await muster.command('twin', 'update', DEVICE, '--desired', '{"delay": 5}');
    const changed = await answers.take();
    assert.deepEqual([changed.correlation_id, JSON.parse(text(changed)).delay], [undefined, 5]);
    await assert.rejects(peer.sender('/devices/dev-2/messages/events'), { condition: 'amqp:unauthorized-access' });
  });

  check(`a device that was not made for Azure is called, by ${way}`, shows('direct methods'), async (muster) => {
    const peer = await asDevice(muster, way, await create(muster, DEVICE));
    const address = `/devices/${DEVICE}/methods/devicebound`;
    const calls = peer.receiver(address);
    const answers = await peer.sender(address);
    const coming = calls.take();
    const asked = { methodName: 'reboot', payload: { after: 5 }, responseTimeoutInSeconds: 15 };
    const invoked = invoke(muster, DEVICE, asked);
    const call = await coming;
    const method = call.application_properties['IoThub-methodname'];
    assert.deepEqual([method, JSON.parse(text(call))], ['reboot', { after: 5 }]);
    const status = rhea.types.wrap_int(207);
    const { correlation_id } = call;
    const application_properties = { 'IoThub-status': status };
    await peer.send(answers, { correlation_id, application_properties, body: data('{"done":true}') });
    assert.deepEqual(await invoked, { status: 207, payload: { done: true } });
  });

  check(
    `a device that was not made for Azure settles what it is sent, and a program hears of it, by ${way}`,
    shows('cloud-to-device: completed, abandoned, rejected, with feedback on each'),
    async (muster) => {
      const peer = await asDevice(muster, way, await create(muster, DEVICE));
      const service = await asService(muster, way);
      const sender = await service.sender('/messages/devicebound');
      const to = `/devices/${DEVICE}/messages/devicebound`;
      for (const message_id of ['done', 'refused']) {
        const application_properties = { 'iothub-ack': 'full', kind: message_id };
        const message = { message_id, to, application_properties, body: data(`body ${message_id}`) };
        assert.deepEqual(await service.send(sender, message), ACCEPTED);
      }
      const messages = peer.receiver(`/devices/${DEVICE}/messages/devicebound`);
      const next = async () => {
        const { message, delivery } = await messages.next();
        const { message_id, application_properties: said } = message;
        assert.deepEqual([text(message), said.kind], [`body ${message_id}`, message_id]);
        return [message_id, delivery];
      };
      const [released, delivery] = await next();
      assert.equal(released, 'done');
      delivery.release();
      const [first, completed] = await next();
      completed.accept();
      const [second, rejected] = await next();
      rejected.reject();
      assert.deepEqual([first, second].sort(), ['done', 'refused']);

      const feedback = service.receiver('/messages/servicebound/feedback');
      const statuses = new Map();
      while (statuses.size < 2) {
        const batch = await feedback.take();
        for (const one of JSON.parse(text(batch))) statuses.set(one.originalMessageId, one.statusCode);
      }
      assert.deepEqual([statuses.get(first), statuses.get(second)], ['Success', 'Rejected']);
    },
  );

  check(
    `a module that was not made for Azure sends, has its twin, is called and is sent messages, by ${way}`,
    shows('modules: telemetry, twin, direct methods, cloud-to-device with feedback'),
    async (muster) => {
      await create(muster, DEVICE);
      const { responseBody: made } = await registryOf(muster).addModule({ deviceId: DEVICE, moduleId: MODULE });
      const peer = await asDevice(muster, way, made.authentication.symmetricKey.primaryKey, MODULE);
      const own = `/devices/${DEVICE}/modules/${MODULE}`;
      const telemetry = await peer.sender(`${own}/messages/events`);
      assert.deepEqual(await peer.send(telemetry, { body: data('from the module') }), ACCEPTED);
      const [{ deviceId, moduleId, body }] = await muster.telemetry(1);
      assert.deepEqual([deviceId, moduleId, body], [DEVICE, MODULE, 'from the module']);

      const answers = peer.receiver(`${own}/twin`);
      const questions = await peer.sender(`${own}/twin`);
      const message_annotations = { operation: 'PATCH', resource: '/properties/reported' };
      await peer.send(questions, { message_annotations, correlation_id: 'c', body: data('{"running":true}') });
      assert.equal((await answers.take()).message_annotations.version, 2);
      const { responseBody: twin } = await registryOf(muster).getModuleTwin(DEVICE, MODULE);
      assert.equal(twin.properties.reported.running, true);

      const coming = peer.receiver(`${own}/methods/devicebound`).take();
      const results = await peer.sender(`${own}/methods/devicebound`);
      const invoked = invoke(muster, DEVICE, MODULE, { methodName: 'reboot', responseTimeoutInSeconds: 15 });
      const { correlation_id, application_properties: call } = await coming;
      assert.equal(call['IoThub-methodname'], 'reboot');
      const application_properties = { 'IoThub-status': rhea.types.wrap_int(207) };
      await peer.send(results, { correlation_id, application_properties, body: data('{"done":true}') });
      assert.deepEqual(await invoked, { status: 207, payload: { done: true } });

      const service = await asService(muster, way);
      const sender = await service.sender('/messages/devicebound');
      const asked = { message_id: 'm1', application_properties: { 'iothub-ack': 'full' }, body: data('to the module') };
      assert.deepEqual(await service.send(sender, { ...asked, to: `${own}/messages/devicebound` }), ACCEPTED);
      const lost = await service.send(sender, { to: `${own}-2/messages/devicebound`, body: data('to nobody') });
      assert.deepEqual(lost, { outcome: 'rejected', condition: 'amqp:not-found' });
      assert.equal(text(await peer.receiver(`${own}/messages/devicebound`).take()), 'to the module');
      const [told] = JSON.parse(text(await service.receiver('/messages/servicebound/feedback').take()));
      assert.deepEqual([told.deviceId, told.moduleId], [DEVICE, MODULE]);
      assert.deepEqual([told.originalMessageId, told.statusCode], ['m1', 'Success']);
      for (const others of [`/devices/${DEVICE}`, `${own}-2`]) {
        await assert.rejects(peer.sender(`${others}/messages/events`), { condition: 'amqp:unauthorized-access' });
      }
    },
  );

  check(
    `a program that was not made for Azure is refused, and gets feedback again, by ${way}`,
    shows('cloud-to-device: refused (unknown device, no right), feedback released'),
    async (muster) => {
      await create(muster, DEVICE);
      const service = await asService(muster, way);
      const sender = await service.sender('/messages/devicebound');
      const lost = await service.send(sender, { to: '/devices/nobody/messages/devicebound', body: data('hello') });
      assert.deepEqual(lost, { outcome: 'rejected', condition: 'amqp:not-found' });
      const application_properties = { 'iothub-ack': 'full' };
      const to = `/devices/${DEVICE}/messages/devicebound`;
      await service.send(sender, { message_id: 'm1', to, application_properties, body: data('purged') });
      await muster.command('message', 'purge', DEVICE);
      const feedback = service.receiver('/messages/servicebound/feedback');
      for (const settle of [(delivery) => delivery.release(), (delivery) => delivery.accept()]) {
        const { message, delivery } = await feedback.next();
        const [{ originalMessageId, statusCode }] = JSON.parse(text(message));
        assert.deepEqual([originalMessageId, statusCode], ['m1', 'Purged']);
        settle(delivery);
      }
      const reader = await asService(muster, way, 'registryRead');
      await assert.rejects(reader.sender('/messages/devicebound'), { condition: 'amqp:unauthorized-access' });
    },
  );

  check(
    `a reader that was not made for Azure reads at the endpoint for event hubs, by ${way}`,
    shows('Event Hubs endpoint: management, selectors, epochs'),
    async (muster) => {
      const peer = await asDevice(muster, way, await create(muster, DEVICE));
      const telemetry = await peer.sender(`/devices/${DEVICE}/messages/events`);
      for (const body of ['0', '1', '2', '3', '4']) await peer.send(telemetry, { body: data(body) });
      const { name } = muster.hub;
      const reader = await asReader(muster, way);
      const partition = await filled(reader, name);
      const address = `${name}/ConsumerGroups/$Default/Partitions/${partition}`;
      const read = async (count, expression) => {
        const receiver = reader.receiver({ address, filter: rhea.filter.selector(expression) });
        const messages = [];
        while (messages.length < count) messages.push(await receiver.take());
        receiver.link.close();
        return messages;
      };
      const everything = await read(5, "amqp.annotation.x-opt-offset > '-1'");
      assert.deepEqual(everything.map(text), ['0', '1', '2', '3', '4']);
      assert.equal(everything[0].message_annotations['iothub-connection-device-id'], DEVICE);
      const offset = everything[2].message_annotations['x-opt-offset'];
      const behind = await read(2, `amqp.annotation.x-opt-offset > '${offset}'`);
      assert.deepEqual(behind.map(text), ['3', '4']);
      const number = everything[3].message_annotations['x-opt-sequence-number'];
      assert.deepEqual((await read(1, `amqp.annotation.x-opt-sequence-number > '${number}'`)).map(text), ['4']);

      const claim = (epoch) =>
        reader.receiver(address, { properties: { 'com.microsoft:epoch': rhea.types.wrap_long(epoch) } });
      const weak = claim(1);
      assert.equal(text(await weak.take()), '0');
      const strong = claim(2);
      assert.equal(text(await strong.take()), '0');
      for (const refused of [weak, claim(1)]) {
        let condition;
        while ((condition = await refused.refusal()) === undefined);
        assert.equal(condition, 'amqp:link:stolen');
      }
    },
  );
}

const BY_TOKEN = { ...RHEA, transport: 'amqp', credential: CREDENTIALS.CBS };

check(
  'telemetry that is settled before it is sent arrives in order',
  { ...BY_TOKEN, feature: 'telemetry, settled by its sender' },
  async (muster) => {
    const peer = await asDevice(muster, 'CBS', await create(muster, DEVICE));
    const link = await peer.sender(`/devices/${DEVICE}/messages/events`, { snd_settle_mode: SETTLED });
    const bodies = ['0', '1', '2', '3', '4'];
    for (const body of bodies) link.send({ body: data(body) });
    const arrived = await muster.telemetry(bodies.length);
    assert.deepEqual(arrived.map(({ body }) => body), bodies);
    assert.ok(link.is_open(), 'the link stays');
  },
);

check(
  'a batch of telemetry in one transfer is read as its messages',
  { ...BY_TOKEN, feature: 'telemetry, a batch in one transfer' },
  async (muster) => {
    const peer = await asDevice(muster, 'CBS', await create(muster, DEVICE));
    const link = await peer.sender(`/devices/${DEVICE}/messages/events`);
    const encode = (name) =>
      rhea.message.encode({ message_id: name, application_properties: { name }, body: data(`body ${name}`) });
    const batch = rhea.message.encode({ body: rhea.message.data_sections([encode('a'), encode('b')]) });
    assert.deepEqual(await peer.send(link, batch, BATCH), ACCEPTED);
    assert.deepEqual(await peer.send(link, { body: data('alone') }), ACCEPTED);
    const arrived = await muster.telemetry(3);
    const told = arrived.map(({ body, properties, systemProperties }) => [body, properties, systemProperties.messageId]);
    assert.deepEqual(told.slice(0, 2), [['body a', { name: 'a' }, 'a'], ['body b', { name: 'b' }, 'b']]);
    assert.equal(told[2][0], 'alone');
  },
);

check(
  'a receiver that drains its credit gets what waits, and nothing more until it asks again',
  { ...BY_TOKEN, feature: 'credit drained: messages to a device, telemetry' },
  async (muster) => {
    const peer = await asDevice(muster, 'CBS', await create(muster, DEVICE));
    const telemetry = await peer.sender(`/devices/${DEVICE}/messages/events`);
    const report = (body) => peer.send(telemetry, { body: data(body) });
    const tell = (body) => muster.command('message', 'send', DEVICE, body);
    const messages = peer.receiver(`/devices/${DEVICE}/messages/devicebound`);
    messages.link.add_credit(CREDIT);
    await tell('first');
    assert.equal(text(await messages.take()), 'first');
    await messages.drain();
    assert.deepEqual([messages.link.credit, messages.arrived], [0, 0]);
    await tell('second');
    // What the hub would send of itself would stand before what it answers on the same connection.
    assert.deepEqual(await report('0'), ACCEPTED);
    assert.equal(messages.arrived, 0);
    assert.equal(text(await messages.take()), 'second');
    // One poll brings everything that waits.
    for (const body of ['third', 'fourth', 'fifth']) await tell(body);
    await messages.drain(CREDIT);
    assert.deepEqual([messages.link.credit, messages.arrived], [0, 3]);
    for (const body of ['third', 'fourth', 'fifth']) assert.equal(text(await messages.take()), body);
    await messages.drain();
    assert.equal(messages.arrived, 0);

    const reader = await asReader(muster, 'CBS');
    const partition = await filled(reader, muster.hub.name);
    const events = reader.receiver(`${muster.hub.name}/ConsumerGroups/$Default/Partitions/${partition}`);
    events.link.add_credit(CREDIT);
    assert.equal(text(await events.take()), '0');
    await events.drain();
    assert.deepEqual([events.link.credit, events.arrived], [0, 0]);
    await report('1');
    assert.equal(await filled(reader, muster.hub.name), partition);
    assert.equal(events.arrived, 0);
    assert.equal(text(await events.take()), '1');
    for (const body of ['2', '3', '4']) assert.deepEqual(await report(body), ACCEPTED);
    await events.drain(CREDIT);
    assert.deepEqual([events.link.credit, events.arrived], [0, 3]);
    for (const body of ['2', '3', '4']) assert.equal(text(await events.take()), body);
  },
);

check(
  'a client hears the server within its idle time-out',
  { ...BY_TOKEN, feature: 'idle time-out: the server is heard in time' },
  async (muster) => {
    const { hostName: host } = muster.hub;
    const peer = await Peer.open(muster, host, { username: 'anonymous', idle_time_out: IDLE_MS });
    const lost = once(peer.connection, 'disconnected').then(() => assert.fail('the server was not heard'));
    lost.catch(() => {});
    const { socket } = peer.connection;
    for (let beat = 0; beat < HEARTBEATS; beat += 1) {
      const heard = once(socket, 'data');
      const [frame] = await within(IDLE_MS, 'the server is heard', Promise.race([heard, lost]));
      assert.equal(frame.toString('hex'), '0000000802000000', 'an empty frame');
    }
    assert.ok(peer.connection.is_open());
  },
);

check(
  'a client that falls silent is ended in words, and one that speaks stays',
  { ...BY_TOKEN, feature: 'idle time-out: a silent client is ended' },
  async (muster) => {
    await muster.restart({ MUSTER_AMQP_IDLE_S: SILENCE_S });
    const peer = await asDevice(muster, 'CBS', await create(muster, DEVICE));
    const silent = await Peer.open(muster, muster.hub.hostName);
    const ended = once(silent.connection, 'connection_error');
    // Nothing else is wanted of it: this is how the client keeps itself alive.
    silent.connection._write_frame = () => {};
    await within(ENDED_MS, 'the silent one is ended', ended);
    assert.equal(silent.connection.error.condition, 'amqp:resource-limit-exceeded');
    const telemetry = await peer.sender(`/devices/${DEVICE}/messages/events`);
    assert.deepEqual(await peer.send(telemetry, { body: data('still here') }), ACCEPTED);
  },
);

check(
  "a hub's own address for telemetry leads to its event hub, where a monitor reads on from a time",
  { ...RHEA, transport: 'amqp', credential: CREDENTIALS.PLAIN, feature: 'redirect from the hub to its event hub, read from a time on' },
  async (muster) => {
    const { hostName, name } = muster.hub;
    const device = await asDevice(muster, 'PLAIN', await create(muster, DEVICE));
    const telemetry = await device.sender(`/devices/${DEVICE}/messages/events`);
    await device.send(telemetry, { body: data('0') });
    const reader = await asReader(muster, 'CBS');
    const partition = `ConsumerGroups/$Default/Partitions/${await filled(reader, name)}`;
    const service = await asService(muster, 'PLAIN');
    const told = [];
    for (const place of ['$management', partition]) {
      for (const origin of [`amqps://${hostName}`, '']) {
        const way = service.receiver(`${origin}/messages/events/${place}`);
        const why = await way.next().then(() => assert.fail('it is read here'), (ended) => ended);
        assert.equal(why.condition, 'amqp:link:redirect');
        const { hostname, address } = why.info;
        assert.equal(hostname, hostName);
        assert.match(address, /:\d+\//);
        const { pathname } = new URL(address);
        assert.equal(pathname, `/${name}/${place}`);
        told.push(address);
      }
    }
    const address = told.at(-1);
    const first = await reader.receiver(address).take();
    const stored = first.message_annotations['x-opt-enqueued-time'];
    // What is sent from then on is stored later.
    while (Date.now() <= stored);
    await device.send(telemetry, { body: data('1') });
    for (const [time, expected] of [[stored - 1, '0'], [stored, '1']]) {
      const filter = rhea.filter.selector(`amqp.annotation.x-opt-enqueuedtimeutc > ${time}`);
      assert.equal(text(await reader.receiver({ address, filter }).take()), expected);
    }
    const stranger = await asService(muster, 'PLAIN', 'registryRead');
    const refused = stranger.receiver(`amqps://${hostName}/messages/events/$management`);
    assert.equal(await refused.refusal(), 'amqp:unauthorized-access');
  },
);
