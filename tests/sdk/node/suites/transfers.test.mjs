// Imports and exports: azure-iothub has them carried out, and @azure/storage-blob writes and reads their files.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { create, registryOf } from '../devices.mjs';
import { check, client } from '../muster.mjs';

// The version that the device client brings along.
const storage = createRequire(createRequire(import.meta.url).resolve('azure-iot-device'))('@azure/storage-blob');

const SERVICE = { ...client('azure-iothub'), transport: 'https', credential: 'policy' };
const WITHIN_MS = 60_000;

/** The address of the hub's own container, and the client that the documentation has users make of it. */
async function containerOf(muster) {
  await muster.command('hub', 'update', muster.hub.name, '--upload-container', 'uploads');
  const { containerUri } = await muster.command('file', 'container');
  const pipeline = storage.newPipeline(new storage.AnonymousCredential(), { retryOptions: { maxTries: 1 } });
  return { uri: containerUri, container: new storage.ContainerClient(containerUri, pipeline) };
}

async function linesOf(container, name) {
  const text = (await container.getBlockBlobClient(name).downloadToBuffer()).toString();
  return text.trimEnd().split('\n').map((line) => JSON.parse(line));
}

/** The job once it has ended: asked again and again, since nobody tells of it. */
async function ended(registry, { jobId }) {
  for (const until = Date.now() + WITHIN_MS; Date.now() < until; ) {
    const job = await registry.getJob(jobId);
    if (['completed', 'failed', 'cancelled'].includes(job.status)) return job;
  }
  return assert.fail(`${jobId} goes on`);
}

check(
  'a back end exports devices, changes their lines, and imports them',
  { ...SERVICE, feature: 'import and export: there and back, listed' },
  async (muster) => {
    const registry = registryOf(muster);
    const { uri, container } = await containerOf(muster);
    const key = await create(muster, 'dev-1');

    const exported = await ended(registry, await registry.exportDevicesToBlob(uri, false));
    assert.deepEqual([exported.type, exported.status, exported.progress], ['export', 'completed', 100]);
    const [line] = await linesOf(container, 'devices.txt');
    assert.deepEqual([line.id, line.authentication.symmetricKey.primaryKey], ['dev-1', key]);

    const lines = [{ ...line, status: 'disabled' }, { ...line, id: 'dev-2' }, { id: 'dev-1', importMode: 'create' }];
    const text = lines.map((wanted) => JSON.stringify(wanted)).join('\n');
    await container.getBlockBlobClient('devices.txt').upload(text, text.length);
    const imported = await ended(registry, await registry.importDevicesFromBlob(uri, uri));
    assert.deepEqual([imported.type, imported.status], ['import', 'completed']);
    const [fault] = await linesOf(container, 'importErrors.log');
    assert.deepEqual([fault.line, fault.deviceId, fault.errorCode], [3, 'dev-1', 'DeviceAlreadyExists']);
    const status = async (id) => (await registry.get(id)).responseBody.status;
    assert.deepEqual([await status('dev-1'), await status('dev-2')], ['disabled', 'enabled']);

    await ended(registry, await registry.exportDevicesToBlob(uri, true));
    const [without] = await linesOf(container, 'devices.txt');
    assert.equal(without.authentication.symmetricKey.primaryKey, null);
    const { responseBody: jobs } = await registry.listJobs();
    assert.deepEqual(jobs.map((job) => job.type), ['export', 'import', 'export']);
  },
);

check(
  'a back end ends an import, and is refused one by a managed identity',
  { ...SERVICE, feature: 'import and export: cancelled, refused' },
  async (muster) => {
    const registry = registryOf(muster);
    const { uri, container } = await containerOf(muster);
    const text = Array.from({ length: 20_000 }, (_, number) => `{"id":"dev-${number}","importMode":"create"}`).join('\n');
    await container.getBlockBlobClient('devices.txt').upload(text, text.length);
    const begun = await registry.importDevicesFromBlob(uri, uri);
    await registry.cancelJob(begun.jobId);
    assert.equal((await registry.getJob(begun.jobId)).status, 'cancelled');

    const refused = { name: 'ArgumentError', message: /storageAuthenticationType can only be keyBased/ };
    const told = ({ name, message, responseBody }) => {
      assert.match(`${message} ${responseBody}`, refused.message);
      assert.equal(name, refused.name);
      return true;
    };
    await assert.rejects(registry.importDevicesFromBlobByIdentity(uri, uri), told);
    await assert.rejects(registry.exportDevicesToBlobByIdentity(uri, false), told);
  },
);
