// azure-iot-provisioning-device over each of its transports, with enrollments made by azure-iot-provisioning-service.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { check, client } from '../muster.mjs';
import { derived, enroll, enrollGroup, registerByCertificate, registerByKey } from '../provisioning.mjs';

const HTTP = client('azure-iot-provisioning-device-http');
const MQTT = client('azure-iot-provisioning-device-mqtt');
const AMQP = client('azure-iot-provisioning-device-amqp');
const TRANSPORTS = { https: HTTP, mqtt: MQTT, 'mqtt-ws': MQTT, amqp: AMQP, 'amqp-ws': AMQP };

function assigned(muster, result, deviceId) {
  assert.equal(result.status, 'assigned');
  assert.equal(result.assignedHub, muster.hub.hostName);
  assert.equal(result.deviceId, deviceId);
}

/** Makes an intermediate below the root, and enrolls the devices whose certificates it signs. */
async function enrollFactory(muster) {
  const { pem } = await muster.certificate('intermediate', 'factory', '--issuer', 'root');
  const x509 = { signingCertificates: { primary: { certificate: pem } } };
  await enrollGroup(muster, 'caves', { type: 'x509', x509 });
}

/**
 * What a device that must be refused is told. HTTPS hands over the text of the answer, MQTT what it holds, AMQP the error
 * of the outcome; of an exchange by SASL that did not end well it says nothing more.
 */
async function refusal(registering) {
  const error = await registering.then(() => assert.fail('this must be refused'), (reason) => reason);
  if (error.name === 'NotConnectedError') return [error.name];
  const { errorCode, message } = error.result ?? JSON.parse(error.responseBody ?? error.description);
  return [error.name ?? error.condition, errorCode, message];
}

/** How a refused credential looks: by a key, and by a certificate. */
function refused(transport) {
  const told = [401002, 'Unauthorized'];
  if (!transport.startsWith('amqp')) return { key: ['UnauthorizedError', ...told], certificate: ['UnauthorizedError', ...told] };
  return { key: ['NotConnectedError'], certificate: ['amqp:unauthorized-access', ...told] };
}

for (const [transport, sdk] of Object.entries(TRANSPORTS)) {
  const shows = (credential, feature) => ({ ...sdk, transport, credential, feature });

  check(
    `devices register with a primary or a secondary key of their own over ${transport}`,
    shows('symmetric key', 'provision, individual enrollment'),
    async (muster) => {
      const register = async (name, which) => {
        const key = (await enroll(muster, name)).attestation.symmetricKey[which];
        assigned(muster, await registerByKey(muster, transport, name, key), name);
      };
      await Promise.all([register('dev-1', 'primaryKey'), register('dev-2', 'secondaryKey')]);
    },
  );

  check(
    `devices register with keys derived from their group over ${transport}`,
    shows('symmetric key', 'provision, enrollment group'),
    async (muster) => {
      const made = await enrollGroup(muster, 'caves', { type: 'symmetricKey' });
      const register = async (name) => {
        const key = derived(made.attestation.symmetricKey.primaryKey, name);
        assigned(muster, await registerByKey(muster, transport, name, key), name);
      };
      await Promise.all(['cave-1', 'Cave-2'].map(register));
    },
  );

  check(
    `a device registers with a self-signed certificate over ${transport}`,
    shows('X.509', 'provision, individual enrollment, self-signed'),
    async (muster) => {
      const certificate = await muster.certificate('device', 'dev-x');
      const x509 = { clientCertificates: { primary: { certificate: certificate.pem } } };
      await enroll(muster, 'dev-x', { attestation: { type: 'x509', x509 } });
      assigned(muster, await registerByCertificate(muster, transport, 'dev-x', certificate), 'dev-x');
    },
  );

  check(
    `devices register over ${transport} with certificates of an intermediate, below a root that was proved`,
    shows('X.509', 'provision, enrollment group, through an intermediate'),
    async (muster) => {
      await muster.certificate('root', 'root');
      assert.equal((await muster.prove('root')).properties.isVerified, true);
      await enrollFactory(muster);
      const register = async (name) => {
        const certificate = await muster.certificate('device', name, '--issuer', 'factory');
        assigned(muster, await registerByCertificate(muster, transport, name, certificate), name);
      };
      await Promise.all(['cave-1', 'cave-2'].map(register));
    },
  );

  check(
    `a device registers over ${transport} by reference to a root, through an intermediate`,
    shows('X.509', 'provision, enrollment group, by reference to a CA certificate'),
    async (muster) => {
      await muster.certificate('root', 'root');
      await muster.prove('root');
      await muster.certificate('intermediate', 'factory', '--issuer', 'root');
      await enrollGroup(muster, 'caves', { type: 'x509', x509: { caReferences: { primary: 'root' } } });
      const certificate = await muster.certificate('device', 'cave-1', '--issuer', 'factory');
      assigned(muster, await registerByCertificate(muster, transport, 'cave-1', certificate), 'cave-1');
    },
  );

  check(
    `every refused credential gets the same answer over ${transport}`,
    shows('any', 'refusals cannot be told apart'),
    async (muster) => {
      const { primaryKey } = (await enroll(muster, 'dev-1')).attestation.symmetricKey;
      const disabled = (await enroll(muster, 'dev-2', { provisioningStatus: 'disabled' })).attestation.symmetricKey;
      const own = await muster.certificate('device', 'dev-x');
      await muster.certificate('root', 'root');
      await enrollFactory(muster);
      const issued = await muster.certificate('device', 'cave-1', '--issuer', 'factory');
      const { key, certificate } = refused(transport);
      const answers = await Promise.all([
        refusal(registerByKey(muster, transport, 'dev-1', disabled.primaryKey)),
        refusal(registerByKey(muster, transport, 'dev-2', disabled.primaryKey)),
        refusal(registerByKey(muster, transport, 'dev-9', primaryKey)),
        refusal(registerByCertificate(muster, transport, 'dev-x', own)),
        refusal(registerByCertificate(muster, transport, 'cave-1', issued)),
      ]);
      assert.deepEqual(answers, [key, key, key, certificate, certificate]);
      const elsewhere = await refusal(registerByKey(muster, transport, 'dev-1', primaryKey, { idScope: '0ne00000000' }));
      if (key.length > 1) assert.equal(elsewhere[1], 404000);
      else assert.deepEqual(elsewhere, key);
    },
  );
}
