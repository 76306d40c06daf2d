// azure-iot-provisioning-device over each of its transports, with enrollments made by azure-iot-provisioning-service.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { check, client } from '../muster.mjs';
import { derived, enroll, registerByCertificate, registerByKey, serviceOf } from '../provisioning.mjs';

const HTTP = client('azure-iot-provisioning-device-http');
const MQTT = client('azure-iot-provisioning-device-mqtt');
const TRANSPORTS = { https: HTTP, mqtt: MQTT, 'mqtt-ws': MQTT };

function assigned(muster, result, deviceId) {
  assert.equal(result.status, 'assigned');
  assert.equal(result.assignedHub, muster.hub.hostName);
  assert.equal(result.deviceId, deviceId);
}

for (const [transport, sdk] of Object.entries(TRANSPORTS)) {
  const shows = (credential, feature) => ({ ...sdk, transport, credential, feature });

  check(
    `a device registers with its own key over ${transport}`,
    shows('symmetric key', 'provision, individual enrollment'),
    async (muster) => {
      const { primaryKey, secondaryKey } = (await enroll(muster, 'dev-1')).attestation.symmetricKey;
      for (const key of [primaryKey, secondaryKey]) {
        assigned(muster, await registerByKey(muster, transport, 'dev-1', key), 'dev-1');
      }
    },
  );

  check(
    `devices register with keys derived from their group over ${transport}`,
    shows('symmetric key', 'provision, enrollment group'),
    async (muster) => {
      const group = { enrollmentGroupId: 'caves', attestation: { type: 'symmetricKey' } };
      const made = (await serviceOf(muster).createOrUpdateEnrollmentGroup(group)).responseBody;
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
}
