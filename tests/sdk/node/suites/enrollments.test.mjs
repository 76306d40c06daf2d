// azure-iot-provisioning-service: enrollments, groups, attestation mechanisms, registrations, queries and bulk changes.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { promisify } from 'node:util';
import { check, client } from '../muster.mjs';
import { derived, enroll, enrollGroup, registerByKey, serviceOf } from '../provisioning.mjs';

const SERVICE = client('azure-iot-provisioning-service');
const shows = (feature) => ({ ...SERVICE, transport: 'https', credential: 'policy', feature });

const body = async (answered) => (await answered).responseBody;
const registrationIds = (items) => items.map(({ registrationId }) => registrationId).sort();

/** The status of an answer that must be an error, and the code in its body. */
async function refusal(answered) {
  const error = await answered.then(() => assert.fail('this must be refused'), (reason) => reason);
  return [error.name, JSON.parse(error.responseBody).errorCode];
}

/** Reads a query page by page. The client begins again unless it is told where it stands. */
async function pages(query) {
  const read = [];
  do {
    read.push(await body(query.next(query.continuationToken)));
  } while (query.hasMoreResults);
  return read;
}

check('an enrollment is created, read, updated and deleted', shows('individual enrollments'), async (muster) => {
  const service = serviceOf(muster);
  const terms = {
    deviceId: 'Device-1',
    initialTwin: { tags: { place: 'cave' }, properties: { desired: { temperature: 50.123 } } },
    reprovisionPolicy: { updateHubAssignment: true, migrateDeviceData: false },
    capabilities: { iotEdge: false },
    allocationPolicy: 'static',
    iotHubs: [muster.hub.hostName],
    optionalDeviceInformation: { colour: 'red' },
  };
  const made = await enroll(muster, 'dev-1', terms);
  for (const [member, value] of Object.entries(terms)) assert.deepEqual(made[member], value, member);
  const { primaryKey, secondaryKey } = made.attestation.symmetricKey;
  assert.notEqual(primaryKey, secondaryKey);
  const read = await body(service.getIndividualEnrollment('dev-1'));
  assert.deepEqual(read.attestation, { type: 'symmetricKey' });
  assert.deepEqual(read.registrationState, { registrationId: 'dev-1', status: 'unassigned' });
  assert.deepEqual([read.etag, read.provisioningStatus], [made.etag, 'enabled']);
  const changed = await body(service.createOrUpdateIndividualEnrollment({ ...read, provisioningStatus: 'disabled' }));
  assert.deepEqual([changed.provisioningStatus, changed.createdDateTimeUtc], ['disabled', made.createdDateTimeUtc]);
  assert.notEqual(changed.etag, made.etag);
  const mechanism = await body(service.getIndividualEnrollmentAttestationMechanism('dev-1'));
  assert.deepEqual(mechanism, { type: 'symmetricKey', symmetricKey: { primaryKey, secondaryKey } });
  assert.deepEqual(await refusal(service.deleteIndividualEnrollment(read)), ['InvalidEtagError', 412001]);
  await service.deleteIndividualEnrollment(changed);
  assert.deepEqual(await refusal(service.getIndividualEnrollment('dev-1')), ['Error', 404201]);
});

check('an enrollment group is created, read, updated and deleted', shows('enrollment groups'), async (muster) => {
  const service = serviceOf(muster);
  const made = await enrollGroup(muster, 'caves', { type: 'symmetricKey' });
  const read = await body(service.getEnrollmentGroup('caves'));
  assert.deepEqual([read.attestation, read.etag], [{ type: 'symmetricKey' }, made.etag]);
  const changed = await body(service.createOrUpdateEnrollmentGroup({ ...read, provisioningStatus: 'disabled' }));
  assert.deepEqual([changed.provisioningStatus, changed.attestation], ['disabled', made.attestation]);
  const mechanism = await body(service.getEnrollmentGroupAttestationMechanism('caves'));
  assert.deepEqual(mechanism, made.attestation);
  assert.deepEqual(await refusal(service.deleteEnrollmentGroup('caves', made.etag)), ['InvalidEtagError', 412001]);
  await service.deleteEnrollmentGroup('caves');
  assert.deepEqual(await refusal(service.getEnrollmentGroup('caves')), ['Error', 404204]);
});

check('an enrolled certificate is shown by what it says, never itself', shows('X.509 enrollments'), async (muster) => {
  const { pem } = await muster.certificate('device', 'dev-x');
  const x509 = { clientCertificates: { primary: { certificate: pem } } };
  const made = await enroll(muster, 'dev-x', { attestation: { type: 'x509', x509 } });
  const { primary } = made.attestation.x509.clientCertificates;
  assert.equal(primary.certificate, undefined);
  assert.equal(primary.info.subjectName, 'CN=dev-x');
  assert.match(primary.info.sha256Thumbprint, /^[0-9A-F]{64}$/);
  // What was read is written back without the certificate, which stays.
  const read = await body(serviceOf(muster).getIndividualEnrollment('dev-x'));
  const disabled = { ...read, provisioningStatus: 'disabled' };
  const kept = await body(serviceOf(muster).createOrUpdateIndividualEnrollment(disabled));
  assert.deepEqual(kept.attestation, made.attestation);
});

const BY_KEY = { type: 'symmetricKey' };
const BY_TPM = { type: 'tpm', tpm: { endorsementKey: 'AToAAQALAAMAsgAg' } };
const EXISTS = 'DeviceAlreadyExistsError';
const put = (entry) => (service) => service.createOrUpdateIndividualEnrollment(entry);
const putGroup = (entry) => (service) => service.createOrUpdateEnrollmentGroup(entry);
const query = (text) => (service) => service.createIndividualEnrollmentQuery({ query: text }).next();
const find = (registrationId) => (service) => service.getDeviceRegistrationState(registrationId);

const REFUSALS = [
  ['an enrollment that exists', EXISTS, 409201, put({ registrationId: 'dev-1', attestation: BY_KEY })],
  ['a group that exists', EXISTS, 409202, putGroup({ enrollmentGroupId: 'caves', attestation: BY_KEY })],
  ['a registration ID with a slash', 'ArgumentError', 400004, put({ registrationId: 'dev/2', attestation: BY_KEY })],
  ['an enrollment without attestation', 'ArgumentError', 400012, put({ registrationId: 'dev-2' })],
  ['a group that attests by TPM', 'ArgumentError', 400004, putGroup({ enrollmentGroupId: 'tpms', attestation: BY_TPM })],
  ['a query for less than all', 'ArgumentError', 400004, query("SELECT * WHERE provisioningStatus = 'enabled'")],
  ['a registration that never was', 'Error', 404202, find('dev-1')],
];

for (const [what, name, code, ask] of REFUSALS) {
  check(`${what} is answered with ${code}`, shows(`errors: ${what}`), async (muster) => {
    await enroll(muster, 'dev-1');
    await enrollGroup(muster, 'caves', { type: 'symmetricKey' });
    assert.deepEqual(await refusal(ask(serviceOf(muster))), [name, code]);
  });
}

check('enrollments and groups are queried page by page', shows('queries with paging'), async (muster) => {
  const service = serviceOf(muster);
  const names = ['a', 'b', 'c', 'd', 'e'];
  for (const name of names) await enroll(muster, `dev-${name}`);
  for (const name of names) await enrollGroup(muster, `group-${name}`, { type: 'symmetricKey' });
  const entries = await pages(service.createIndividualEnrollmentQuery({ query: 'SELECT *' }, 2));
  assert.deepEqual(entries.map((page) => page.length), [2, 2, 1]);
  assert.deepEqual(registrationIds(entries.flat()), names.map((name) => `dev-${name}`));
  assert.ok(entries.flat().every(({ attestation }) => attestation.symmetricKey === undefined), 'keys are hidden');
  const groups = await pages(service.createEnrollmentGroupQuery({ query: 'select * from enrollmentGroups' }, 5));
  assert.deepEqual(groups.map((page) => page.length), [5]);
  const ids = groups.flat().map(({ enrollmentGroupId }) => enrollmentGroupId);
  assert.deepEqual(ids.sort(), names.map((name) => `group-${name}`));
});

check('registrations are read, queried by group and deleted', shows('registration states'), async (muster) => {
  const service = serviceOf(muster);
  const group = await enrollGroup(muster, 'caves', { type: 'symmetricKey' });
  const { primaryKey } = group.attestation.symmetricKey;
  const register = (name) => registerByKey(muster, 'mqtt', name, derived(primaryKey, name));
  await Promise.all(['cave-1', 'cave-2'].map(register));
  const query = service.createEnrollmentGroupDeviceRegistrationStateQuery({ query: 'SELECT *' }, 'caves', 1);
  const states = await pages(query);
  assert.deepEqual(states.map((page) => page.length), [1, 1]);
  assert.deepEqual(registrationIds(states.flat()), ['cave-1', 'cave-2']);
  const state = await body(service.getDeviceRegistrationState('cave-1'));
  const expected = ['cave-1', 'cave-1', 'assigned', 'initialAssignment', muster.hub.hostName];
  assert.deepEqual([state.registrationId, state.deviceId, state.status, state.substatus, state.assignedHub], expected);
  const stale = service.deleteDeviceRegistrationState('cave-1', group.etag);
  assert.deepEqual(await refusal(stale), ['InvalidEtagError', 412001]);
  await service.deleteDeviceRegistrationState(state);
  assert.deepEqual(await refusal(service.getDeviceRegistrationState('cave-1')), ['Error', 404202]);
});

check('enrollments are created, updated and deleted together', shows('bulk'), async (muster) => {
  // Without a callback this client never ends the call.
  const service = serviceOf(muster);
  const bulk = promisify((operation, done) => service.runBulkEnrollmentOperation(operation, done));
  const all = async () => (await pages(service.createIndividualEnrollmentQuery({ query: 'SELECT *' }))).flat();
  const enrollments = ['dev-1', 'dev-2'].map((registrationId) => ({ registrationId, attestation: BY_KEY }));
  assert.deepEqual(await bulk({ mode: 'create', enrollments }), { errors: [], isSuccessful: true });
  const other = { ...enrollments[0], registrationId: 'dev-3' };
  const again = await bulk({ mode: 'create', enrollments: [enrollments[0], other] });
  assert.deepEqual(again.errors.map(({ registrationId, errorCode }) => [registrationId, errorCode]), [['dev-1', 409201]]);
  assert.equal(again.isSuccessful, false);
  const made = (await all());
  assert.deepEqual(registrationIds(made), ['dev-1', 'dev-2', 'dev-3']);
  const disabled = made.map((entry) => ({ ...entry, provisioningStatus: 'disabled' }));
  assert.equal((await bulk({ mode: 'updateIfMatchEtag', enrollments: disabled })).isSuccessful, true);
  const stale = await bulk({ mode: 'updateIfMatchEtag', enrollments: made });
  assert.deepEqual(stale.errors.map(({ errorCode }) => errorCode), [412001, 412001, 412001]);
  assert.ok((await all()).every(({ provisioningStatus }) => provisioningStatus === 'disabled'));
  assert.equal((await bulk({ mode: 'delete', enrollments })).isSuccessful, true);
  assert.deepEqual(registrationIds((await all())), ['dev-3']);
});
