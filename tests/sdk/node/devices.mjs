// What the suites share about devices at a hub: how a provisioned device connects, and what the hub's operators hold.

import { X509Certificate } from 'node:crypto';
import device from 'azure-iot-device';
import amqp from 'azure-iot-device-amqp';
import mqtt from 'azure-iot-device-mqtt';
import iothub from 'azure-iothub';
import { watched } from './covered.mjs';
import { enroll, registerByKey } from './provisioning.mjs';

/** Transports of the device client, by their names in the results. */
export const TRANSPORTS = { mqtt: mqtt.Mqtt, 'mqtt-ws': mqtt.MqttWs, amqp: amqp.Amqp, 'amqp-ws': amqp.AmqpWs };

/** How a device of the registry proves who it is, by the names in the results. */
export const CREDENTIALS = ['symmetric key', 'X.509'];

export function registryOf(muster) {
  return watched(watched(iothub.Registry).fromConnectionString(muster.hub.connectionString));
}

/** Calls a method of a device or module as an operator; gives what the device answers. */
export async function invoke(muster, ...call) {
  const { result } = await callerOf(muster).invokeDeviceMethod(...call);
  return result;
}

/** The client that calls methods; it needs no connection for that. */
export function callerOf(muster) {
  return watched(watched(iothub.Client).fromConnectionString(muster.hub.connectionString));
}

/** The client that reads, changes and commands digital twins. */
export function digitalTwinsOf(muster) {
  const credentials = watched(new iothub.IoTHubTokenCredentials(muster.hub.connectionString));
  return watched(new iothub.DigitalTwinClient(credentials));
}

/** Creates an identity in the registry, by keys unless `terms` say otherwise; returns the key that the hub made for it. */
export async function create(muster, name, terms = {}) {
  const { responseBody } = await registryOf(muster).create({ deviceId: name, ...terms });
  return responseBody.authentication.symmetricKey.primaryKey;
}

/** Provisions a device by a key of its own, and returns the key. */
export async function provision(muster, name, initialTwin) {
  const entry = await enroll(muster, name, initialTwin && { initialTwin });
  const key = entry.attestation.symmetricKey.primaryKey;
  await registerByKey(muster, 'mqtt', name, key);
  return key;
}

/** Creates an identity in the registry by its own certificate, and returns the certificate. */
export async function createByCertificate(muster, name) {
  const own = await muster.certificate('device', name);
  await create(muster, name, { authentication: byThumbprint(own) });
  return own;
}

/** Creates an identity in the registry by a credential, and connects its device. */
export async function enter(muster, transport, credential, name) {
  if (credential === 'X.509') {
    return connectByCertificate(muster, transport, name, await createByCertificate(muster, name));
  }
  return connect(muster, transport, name, await create(muster, name));
}

/** Connects a device by its key, with the client's options, if there are any. */
export function connect(muster, transport, name, key, options) {
  const prepare = (client) => options && client.setOptions(options);
  return open(muster, transport, `DeviceId=${name};SharedAccessKey=${key}`, prepare);
}

/** Connects a device by its key, with tokens that last `seconds`, each renewed half-way. */
export async function connectWithTokens(muster, transport, name, key, seconds) {
  const text = `HostName=${muster.hub.hostName};DeviceId=${name};SharedAccessKey=${key}`;
  const provider = device.SharedAccessKeyAuthenticationProvider.fromConnectionString(text, seconds, seconds / 2);
  const client = device.Client.fromAuthenticationProvider(provider, TRANSPORTS[transport]);
  muster.closing(() => client.close());
  await client.open();
  return client;
}

/** Connects a device by its certificate. */
export function connectByCertificate(muster, transport, name, { chain, key }) {
  return open(muster, transport, `DeviceId=${name};x509=true`, (client) => client.setOptions({ cert: chain, key }));
}

/** Makes a module of a device, and connects it by a key of its own. */
export async function connectModule(muster, transport, deviceId, moduleId) {
  const { responseBody: made } = await registryOf(muster).addModule({ deviceId, moduleId });
  return enterModule(muster, transport, made);
}

/** Connects a module as the registry tells of it, by its key. */
export function enterModule(muster, transport, { deviceId, moduleId, authentication }) {
  const key = authentication.symmetricKey.primaryKey;
  const identity = `DeviceId=${deviceId};ModuleId=${moduleId};SharedAccessKey=${key}`;
  return open(muster, transport, identity, undefined, device.ModuleClient);
}

/** Makes a module of a device by a certificate of its own, and returns the certificate. */
export async function createModuleByCertificate(muster, deviceId, moduleId) {
  const own = await muster.certificate('device', `${deviceId}.${moduleId}`);
  await registryOf(muster).addModule({ deviceId, moduleId, authentication: byThumbprint(own) });
  return own;
}

/** Connects a module by its certificate. */
export async function enterModuleByCertificate(muster, transport, deviceId, moduleId, { chain, key }) {
  const credentials = { host: muster.hub.hostName, deviceId, moduleId, x509: { cert: chain, key } };
  // Of connection strings this client takes those with keys alone, and makes providers for devices alone.
  const provider = new device.X509AuthenticationProvider(credentials);
  const client = device.ModuleClient.fromAuthenticationProvider(provider, TRANSPORTS[transport]);
  muster.closing(() => client.close());
  await client.open();
  return client;
}

function byThumbprint({ pem }) {
  const thumbprint = new X509Certificate(pem).fingerprint256.replaceAll(':', '');
  return { type: 'selfSigned', x509Thumbprint: { primaryThumbprint: thumbprint, secondaryThumbprint: thumbprint } };
}

async function open(muster, transport, identity, prepare = async () => {}, kind = device.Client) {
  const text = `HostName=${muster.hub.hostName};${identity}`;
  const client = kind.fromConnectionString(text, TRANSPORTS[transport]);
  muster.closing(() => client.close());
  await prepare(client);
  await client.open();
  return client;
}

/**
 * Makes `change` again and again until a device is `told`: clients pass over what changes before the hub knows that they
 * listen, and do not tell when that is.
 */
export async function untilTold(change, told) {
  const isTold = told.then(() => true);
  do {
    await change();
  } while (!await Promise.race([isTold, false]));
}

/** Sends a patch of reported properties; this part of the client offers no promise. */
export function report(twin, patch) {
  return new Promise((resolve, reject) => {
    twin.properties.reported.update(patch, (error) => (error ? reject(error) : resolve()));
  });
}

/** A section of a device's twin as the hub answered it, without the client's own members. */
export function section(twin, name) {
  const { update, ...properties } = twin.properties[name];
  return properties;
}
