// What the suites share about provisioning: enrollments made by the service client, devices that register.

import { createHmac } from 'node:crypto';
import provisioningDevice from 'azure-iot-provisioning-device';
import amqp from 'azure-iot-provisioning-device-amqp';
import http from 'azure-iot-provisioning-device-http';
import mqtt from 'azure-iot-provisioning-device-mqtt';
import provisioningService from 'azure-iot-provisioning-service';
import symmetricKey from 'azure-iot-security-symmetric-key';
import x509 from 'azure-iot-security-x509';
import { watched } from './covered.mjs';

/** Transports of the provisioning client, by their names in the results. */
export const TRANSPORTS = {
  https: http.Http,
  mqtt: mqtt.Mqtt,
  'mqtt-ws': mqtt.MqttWs,
  amqp: amqp.Amqp,
  'amqp-ws': amqp.AmqpWs,
};

export function serviceOf(muster) {
  const { ProvisioningServiceClient } = provisioningService;
  return watched(watched(ProvisioningServiceClient).fromConnectionString(muster.provisioning.connectionString));
}

/** Creates an individual enrollment, by symmetric key unless `terms` say otherwise, and returns what was answered. */
export async function enroll(muster, registrationId, terms = {}) {
  const enrollment = { registrationId, attestation: { type: 'symmetricKey' }, ...terms };
  return (await serviceOf(muster).createOrUpdateIndividualEnrollment(enrollment)).responseBody;
}

/** Creates an enrollment group, and returns what was answered. */
export async function enrollGroup(muster, enrollmentGroupId, attestation) {
  return (await serviceOf(muster).createOrUpdateEnrollmentGroup({ enrollmentGroupId, attestation })).responseBody;
}

/** Registers by a symmetric key. */
export function registerByKey(muster, transport, registrationId, key, { idScope, payload } = {}) {
  const security = new symmetricKey.SymmetricKeySecurityClient(registrationId, key);
  return register(muster, transport, security, idScope, payload);
}

/** Registers by a certificate, with its chain and key. */
export function registerByCertificate(muster, transport, registrationId, { chain, key }) {
  return register(muster, transport, new x509.X509Security(registrationId, { cert: chain, key }));
}

async function register(muster, transport, security, idScope = muster.provisioning.idScope, payload = undefined) {
  const { deviceEndpoint } = muster.provisioning;
  const { ProvisioningDeviceClient } = provisioningDevice;
  const client = ProvisioningDeviceClient.create(deviceEndpoint, idScope, new TRANSPORTS[transport](), security);
  if (payload !== undefined) client.setProvisioningPayload(payload);
  return client.register();
}

/** The key of one device of a group (contract/dps-service.md 11). */
export function derived(groupKey, registrationId) {
  return createHmac('sha256', Buffer.from(groupKey, 'base64')).update(registrationId).digest('base64');
}
