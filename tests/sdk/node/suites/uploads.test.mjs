// azure-iot-device uploads files, by itself and by @azure/storage-blob.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import device from 'azure-iot-device';
import mqtt from 'azure-iot-device-mqtt';
import { create } from '../devices.mjs';
import { check, client } from '../muster.mjs';

// The version that the device client brings along.
const storage = createRequire(createRequire(import.meta.url).resolve('azure-iot-device'))('@azure/storage-blob');

// A package of PyPI has the same name.
const SHOWN = { ...client('azure-iot-device'), client: 'azure-iot-device (npm)', transport: 'https', credential: 'symmetric key' };
const BIG = randomBytes(9 * 1024 * 1024 + 17);
const BYTES = { small: Buffer.from('hello'), big: BIG };

/** A device at a hub that takes files and tells of them. Its transport is another: uploads go over HTTPS with any. */
async function uploader(muster, name = 'dev-1') {
  await muster.command('hub', 'update', muster.hub.name, '--upload-container', 'uploads', '--upload-notifications', 'true');
  const key = await create(muster, name);
  const text = `HostName=${muster.hub.hostName};DeviceId=${name};SharedAccessKey=${key}`;
  const hub = device.Client.fromConnectionString(text, mqtt.Mqtt);
  muster.closing(() => hub.close());
  // For uploads this client takes text alone, no path.
  await hub.setOptions({ ca: await readFile(muster.endpoints.caFile, 'utf8') });
  return hub;
}

/** The client that the documentation has users make of what the hub answers. */
function blobOf({ hostName, containerName, blobName, sasToken }) {
  const pipeline = storage.newPipeline(new storage.AnonymousCredential(), { retryOptions: { maxTries: 1 } });
  const path = blobName.split('/').map(encodeURIComponent).join('/');
  return new storage.BlockBlobClient(`https://${hostName}/${containerName}/${path}${sasToken}`, pipeline);
}

for (const [size, bytes] of Object.entries(BYTES)) {
  check(
    `a device uploads a ${size} file by itself, and the back end hears of it`,
    { ...SHOWN, feature: `file upload: uploadToBlob, ${size}` },
    async (muster) => {
      const hub = await uploader(muster);
      await hub.uploadToBlob('logs/file.bin', Readable.from([bytes]), bytes.length);
      const [{ deviceId, blobName, blobSizeInBytes }] = await muster.command('file', 'notifications');
      assert.deepEqual([deviceId, blobName, blobSizeInBytes], ['dev-1', 'dev-1/logs/file.bin', bytes.length]);
      const out = join(muster.data, 'fetched');
      await muster.quiet('file', 'get', 'dev-1/logs/file.bin', '--out', out);
      assert.ok(bytes.equals(await readFile(out)));
    },
  );
}

check(
  'a device uploads in blocks and reads back',
  { ...SHOWN, feature: 'file upload: signature, @azure/storage-blob, notification' },
  async (muster) => {
    const hub = await uploader(muster);
    // Names in ASCII: this client counts the characters of its request, where it should count bytes.
    const place = await hub.getBlobSharedAccessSignature('a b/c.bin');
    const blob = blobOf(place);
    const properties = { blobHTTPHeaders: { blobContentType: 'text/plain' } };
    await blob.uploadData(BIG, { blockSize: 1024 * 1024, maxSingleShotSize: 1024 * 1024, ...properties });
    const { contentLength, contentType } = await blob.getProperties();
    assert.deepEqual([contentLength, contentType], [BIG.length, 'text/plain']);
    assert.ok(BIG.equals(await blob.downloadToBuffer()));
    const part = await blob.downloadToBuffer(1_000_000, 77);
    assert.ok(BIG.subarray(1_000_000, 1_000_077).equals(part));
    await hub.notifyBlobUploadStatus(place.correlationId, true, 201, 'done');
    const [{ name, bytes }] = await muster.command('file', 'list');
    assert.deepEqual([name, bytes], ['dev-1/a b/c.bin', BIG.length]);
    await assert.rejects(blob.upload('x', 1), { statusCode: 403, code: 'AuthenticationFailed' });
    await assert.rejects(hub.notifyBlobUploadStatus(place.correlationId, true, 201, 'done'), { message: 'Bad Request' });
  },
);

check(
  'a block is held against its checksum',
  { ...SHOWN, feature: 'file upload: checksums of blocks' },
  async (muster) => {
    const hub = await uploader(muster);
    const blob = blobOf(await hub.getBlobSharedAccessSignature('a'));
    const name = Buffer.from('b1').toString('base64');
    // What the real service said of these bytes, in a recording of azure-sdk-for-js.
    const [content, sum] = ['b'.repeat(1024), Buffer.from('pK+ypU+jreM=', 'base64')];
    const { xMsContentCrc64 } = await blob.stageBlock(name, content, content.length, { transactionalContentCrc64: sum });
    assert.deepEqual(Buffer.from(xMsContentCrc64), sum);
    const wrong = { transactionalContentCrc64: new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]) };
    await assert.rejects(blob.stageBlock(name, content, content.length, wrong), ({ statusCode, code, details }) => {
      assert.deepEqual([statusCode, code, details.ServerCalculatedCrc], [400, 'Crc64Mismatch', 'pK+ypU+jreM=']);
      return true;
    });
    await blob.commitBlockList([name]);
    assert.equal((await blob.downloadToBuffer()).toString(), content);
  },
);

check(
  'what may not be is refused by name',
  { ...SHOWN, feature: 'file upload: refused' },
  async (muster) => {
    const hub = await uploader(muster);
    await assert.rejects(hub.getBlobSharedAccessSignature('../dev-2/a'), { message: 'Bad Request' });
    const place = await hub.getBlobSharedAccessSignature('a');
    const elsewhere = blobOf({ ...place, blobName: 'dev-2/a' });
    await assert.rejects(elsewhere.upload('x', 1), { statusCode: 403, code: 'AuthenticationFailed' });
    const blob = blobOf(place);
    await blob.stageBlock(Buffer.from('b1').toString('base64'), 'x', 1);
    const missing = Buffer.from('b2').toString('base64');
    await assert.rejects(blob.commitBlockList([missing]), { statusCode: 400, code: 'InvalidBlockList' });
    await assert.rejects(blob.delete(), { statusCode: 403, code: 'AuthorizationPermissionMismatch' });
    await assert.rejects(blob.download(), { statusCode: 404, code: 'BlobNotFound' });
    await hub.notifyBlobUploadStatus(place.correlationId, false, 500, 'failed');
    assert.deepEqual(await muster.command('file', 'list'), []);
    assert.deepEqual(await muster.command('file', 'notifications'), []);
  },
);
