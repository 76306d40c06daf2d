// rhea, an AMQP client that nobody made for Azure, at the AMQP port.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { once } from 'node:events';
import rhea from 'rhea';
import { check, client } from '../muster.mjs';
import { data, Peer, signature, text } from '../peer.mjs';
import { within } from '../process.mjs';
import { enroll } from '../provisioning.mjs';

const RHEA = client('rhea');
const TOLD_MS = 20_000;

/** Opens a connection without a name, or by the SASL mechanism that shows none. */
function open(muster, terms) {
  const { ports, hubs: [{ hostName: host }] } = muster.endpoints;
  return rhea.create_container().connect({ transport: 'tls', host, port: ports.amqps, reconnect: false, ...terms });
}

for (const [how, terms] of Object.entries({ 'by ANONYMOUS': { username: 'anonymous' }, 'without SASL': {} })) {
  check(
    `a client that was not made for Azure opens ${how}, is refused links in order, and leaves`,
    { ...RHEA, transport: 'amqp', credential: 'none', feature: `refusals in order, ${how}` },
    async (muster) => {
      const connection = open(muster, terms);
      await within(TOLD_MS, 'the connection is open', once(connection, 'connection_open'));
      const scope = muster.provisioning.idScope;
      for (const [address, condition] of [
        ['nobody/here', 'amqp:not-found'],
        [`${scope}/registrations/nobody`, 'amqp:unauthorized-access'],
      ]) {
        const fresh = open(muster, terms);
        await within(TOLD_MS, 'another is open', once(fresh, 'connection_open'));
        const sender = fresh.open_sender(address);
        await within(TOLD_MS, 'the link is refused', once(sender, 'sender_error'));
        assert.equal(sender.error.condition, condition);
        fresh.close();
        await within(TOLD_MS, 'the connection is closed', once(fresh, 'connection_close'));
      }
      connection.close();
      await within(TOLD_MS, 'the connection is closed', once(connection, 'connection_close'));
    },
  );
}

/** Registers and polls until it is told what came of it; fails with the outcome of what is not accepted. */
async function register(peer, address) {
  const answers = peer.receiver(address);
  const requests = await peer.sender(address);
  const ask = async (application_properties) => {
    const settled = await peer.send(requests, { correlation_id: 'c-1', application_properties, body: data('{}') });
    if (settled.outcome !== 'accepted') throw settled;
    const answer = await answers.take();
    assert.equal(answer.correlation_id, 'c-1');
    return JSON.parse(text(answer));
  };
  let state = await ask({ 'iotdps-operation-type': 'iotdps-register' });
  while (state.status === 'assigning') {
    const operation = { 'iotdps-operation-type': 'iotdps-get-operationstatus' };
    state = await ask({ ...operation, 'iotdps-operation-id': state.operationId });
  }
  return state;
}

check(
  'a device that was not made for Azure registers',
  { ...RHEA, transport: 'amqp', credential: 'symmetric key', feature: 'register and poll' },
  async (muster) => {
    const { attestation } = await enroll(muster, 'dev-1');
    const key = Buffer.from(attestation.symmetricKey.primaryKey, 'base64');
    const { idScope, deviceEndpoint } = muster.provisioning;
    const address = `${idScope}/registrations/dev-1`;
    const password = signature(address, key, 'registration');
    const peer = await Peer.open(muster, deviceEndpoint, { username: address, password });
    const state = await register(peer, address);
    assert.equal(state.registrationState.assignedHub, muster.hub.hostName);
    const wrong = { username: address, password: signature(address, Buffer.alloc(32), 'registration') };
    await assert.rejects(Peer.open(muster, deviceEndpoint, wrong), { condition: 'amqp:unauthorized-access' });
  },
);

check(
  'a device that was not made for Azure registers and sends by its certificate, chosen as EXTERNAL',
  { ...RHEA, transport: 'amqp', credential: 'X.509', feature: 'SASL EXTERNAL: register and poll, telemetry, refused' },
  async (muster) => {
    const own = await muster.certificate('device', 'dev-1');
    const x509 = { clientCertificates: { primary: { certificate: own.pem } } };
    await enroll(muster, 'dev-1', { attestation: { type: 'x509', x509 } });
    const { idScope, deviceEndpoint } = muster.provisioning;
    const { hostName } = muster.hub;
    const address = `${idScope}/registrations/dev-1`;
    const open = async (host, { chain: cert, key }) => {
      const peer = await Peer.open(muster, host, { cert, key, enable_sasl_external: true });
      assert.equal(peer.connection.sasl_transport.mechanism_name, 'EXTERNAL');
      return peer;
    };
    const state = await register(await open(deviceEndpoint, own), address);
    assert.equal(state.registrationState.assignedHub, hostName);
    const events = '/devices/dev-1/messages/events';
    const device = await open(hostName, own);
    const { outcome } = await device.send(await device.sender(events), { body: data('by certificate') });
    assert.equal(outcome, 'accepted');
    const [{ deviceId, body }] = await muster.telemetry(1);
    assert.deepEqual([deviceId, body], ['dev-1', 'by certificate']);

    const other = await muster.certificate('device', 'other');
    const refused = { outcome: 'rejected', condition: 'amqp:unauthorized-access' };
    await assert.rejects(register(await open(deviceEndpoint, other), address), refused);
    const impostor = await open(hostName, other);
    await assert.rejects(impostor.sender(events), { condition: 'amqp:unauthorized-access' });
  },
);
