// rhea, an AMQP client that nobody made for Azure, at the links of a hub: as a device, a back-end program, a reader.

import '../trust.mjs';
import assert from 'node:assert/strict';
import rhea from 'rhea';
import { create, invoke } from '../devices.mjs';
import { check, client } from '../muster.mjs';
import { data, Peer, signature, text } from '../peer.mjs';

const RHEA = client('rhea');
const DEVICE = 'dev-1';
const ACCEPTED = { outcome: 'accepted', condition: undefined };
const CREDENTIALS = { CBS: 'a token put at $cbs', PLAIN: 'a token as the password of PLAIN' };

/** A device's connection, proven. */
async function asDevice(muster, way, key) {
  const { hostName } = muster.hub;
  const resource = `${hostName}/devices/${DEVICE}`;
  const token = signature(resource, Buffer.from(key, 'base64'));
  if (way === 'PLAIN') return Peer.open(muster, hostName, { username: `${DEVICE}@sas.${hostName}`, password: token });
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
