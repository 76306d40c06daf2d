// Jobs: azure-iothub has one thing done to many devices, which azure-iot-device-mqtt hears of.

import '../trust.mjs';
import assert from 'node:assert/strict';
import iothub from 'azure-iothub';
import { watched } from '../covered.mjs';
import { connect, create, invoke, registryOf } from '../devices.mjs';
import { check, client } from '../muster.mjs';

const SERVICE = { ...client('azure-iothub'), transport: 'https', credential: 'policy' };
const CONNECT_S = 20;
const WITHIN_MS = 60_000;

function jobsOf(muster) {
  return watched(watched(iothub.JobClient).fromConnectionString(muster.hub.connectionString));
}

/** The job once it has ended: asked again and again, since nobody tells of it. */
async function ended(jobs, id) {
  for (const until = Date.now() + WITHIN_MS; Date.now() < until; ) {
    const { jobStatus } = await jobs.getJob(id);
    if (['completed', 'failed', 'cancelled'].includes(jobStatus.status)) return jobStatus;
  }
  return assert.fail(`${id} goes on`);
}

/** All rows of a query, page by page. */
async function rows(query) {
  const found = [];
  while (query.hasMoreResults) found.push(...(await query.next(query.continuationToken)).result);
  return found;
}

check(
  'a job changes the twins that fulfil its condition',
  { ...SERVICE, feature: 'jobs: a change of many twins, pages of jobs' },
  async (muster) => {
    const jobs = jobsOf(muster);
    for (const name of ['dev-1', 'dev-2', 'other']) await create(muster, name);
    const patch = { etag: '*', properties: { desired: { fan: 7 } } };
    const { jobStatus } = await jobs.scheduleTwinUpdate('job-1', "STARTSWITH(deviceId, 'dev-')", patch);
    assert.deepEqual([jobStatus.jobId, jobStatus.type, jobStatus.status], ['job-1', 'scheduleUpdateTwin', 'queued']);
    const job = await ended(jobs, 'job-1');
    const { deviceCount, succeededCount } = job.deviceJobStatistics;
    assert.deepEqual([job.status, deviceCount, succeededCount], ['completed', 2, 2]);
    const registry = registryOf(muster);
    const { responseBody: twin } = await registry.getTwin('dev-2');
    assert.equal(twin.properties.desired.fan, 7);

    const later = new Date(Date.now() + 3_600_000);
    await jobs.scheduleTwinUpdate('job-2', '*', patch, later, 60);
    await jobs.scheduleTwinUpdate('job-3', '*', patch, later, 60);
    const { jobStatus: cancelled } = await jobs.cancelJob('job-3');
    assert.equal(cancelled.status, 'cancelled');
    const names = async (...wanted) => (await rows(jobs.createQuery(...wanted))).map((found) => found.jobId);
    assert.deepEqual(await names('scheduleUpdateTwin', undefined, 2), ['job-1', 'job-2', 'job-3']);
    assert.deepEqual(await names(undefined, 'scheduled', 2), ['job-2']);
    assert.deepEqual(await names('scheduleDeviceMethod', undefined, 2), []);
  },
);

check(
  'a job calls devices and keeps what each answered',
  { ...SERVICE, feature: 'jobs: a method of many devices, and what each answered' },
  async (muster) => {
    const signature = iothub.SharedAccessSignature.create(
      muster.hub.hostName,
      'iothubowner',
      /SharedAccessKey=(.*)$/.exec(muster.hub.connectionString)[1],
      Math.floor(Date.now() / 1000) + 3_600,
    );
    const jobs = watched(watched(iothub.JobClient).fromSharedAccessSignature(signature.toString()));
    const hub = await connect(muster, 'mqtt', 'dev-1', await create(muster, 'dev-1'));
    await create(muster, 'dev-2');
    hub.onDeviceMethod('reboot', (request, response) => response.send(200, { said: request.payload }, () => {}));
    // The client does not tell when it listens: a call waits for it.
    await invoke(muster, 'dev-1', { methodName: 'reboot', connectTimeoutInSeconds: CONNECT_S });
    const call = { methodName: 'reboot', payload: { in: 5 }, responseTimeoutInSeconds: 10 };
    await jobs.scheduleDeviceMethod('call-1', "deviceId IN ['dev-1', 'dev-2']", call, new Date(), 60);
    const job = await ended(jobs, 'call-1');
    const { succeededCount, failedCount } = job.deviceJobStatistics;
    assert.deepEqual([job.status, succeededCount, failedCount], ['completed', 1, 1]);
    const query = registryOf(muster).createQuery("SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'call-1'", 1);
    const found = new Map((await rows(query)).map((row) => [row.deviceId, row]));
    const told = { status: 200, payload: { said: { in: 5 } } };
    assert.deepEqual(found.get('dev-1').outcome, { deviceMethodResponse: told });
    assert.deepEqual([found.get('dev-2').status, found.get('dev-2').error.code], ['failed', 'DeviceNotOnline']);
  },
);
