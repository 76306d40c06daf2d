// Routes to addresses of an AMQP container that nobody made for Azure: rhea, which listens.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import device from 'azure-iot-device';
import rhea from 'rhea';
import { connect, create } from '../devices.mjs';
import { check, client } from '../muster.mjs';
import { within } from '../process.mjs';

// The container is on this machine, and is not waited for longer than need be.
process.env.MUSTER_OUTBOUND_PRIVATE = 'true';
process.env.MUSTER_OUTBOUND_PAUSE_MS = '20';
process.env.MUSTER_OUTBOUND_PAUSE_MAX_S = '1';
process.env.MUSTER_OUTBOUND_ATTEMPTS = '2';

const SHOWS = { ...client('rhea'), transport: 'amqp', credential: 'user and password' };
const TOLD_MS = 20_000;
// A first pause that shows beside the time that a message takes.
const LONGER_MS = 200;

/** A container that takes messages of whoever knows the password, unless `refuses` them. */
class Container {
  messages = [];
  refuses = () => false;
  /** How many more messages are given back, and when each was. */
  returns = 0;
  returned = [];
  #heard = new EventEmitter();
  #server;
  #connections = new Set();

  async listen(port = 0, options = {}) {
    const container = rhea.create_container();
    container.sasl_server_mechanisms.enable_plain((user, password) => user === 'u' && password === 'p w');
    container.on('connection_open', ({ connection }) => this.#connections.add(connection));
    container.on('disconnected', ({ connection }) => this.#connections.delete(connection));
    container.on('message', ({ message, delivery, receiver }) => {
      if (this.refuses(message)) {
        delivery.reject({ condition: 'amqp:decode-error', description: 'it is ugly' });
        return;
      }
      if (this.returns > 0) {
        this.returns -= 1;
        this.returned.push(performance.now());
        delivery.release();
        return;
      }
      delivery.accept();
      this.messages.push({ message, address: receiver.target.address });
      this.#heard.emit('message');
    });
    const address = { host: '127.0.0.1', port };
    this.#server = container.listen({ ...address, receiver_options: { autoaccept: false }, ...options });
    if (!this.#server.listening) await once(this.#server, 'listening');
    return this.#server.address().port;
  }

  async close() {
    for (const connection of this.#connections) connection.socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async take(count) {
    const enough = async () => {
      while (this.messages.length < count) await once(this.#heard, 'message');
    };
    await within(TOLD_MS, `${count} messages arrive`, enough());
    return this.messages;
  }
}

const bodies = (messages) => messages.map(({ message }) => message.body.content.toString());

async function route(muster, name, connection, ...options) {
  const create = ['endpoint', 'create', 'amqp', name, '--hub', 'hub', '--connection-string', connection];
  await muster.command(...create, ...options);
  await muster.command('route', 'create', name, '--hub', 'hub', '--endpoint', name);
}

/** What is said of the last failure at an endpoint, once there is one. */
async function failure(muster, name) {
  for (;;) {
    const all = await muster.command('endpoint', 'health', '--hub', 'hub');
    const { lastKnownError } = all.find(({ endpointId }) => endpointId === name);
    if (lastKnownError) return lastKnownError;
  }
}

/** A certificate for this machine's address, signed by itself: its file, and what a container listens with. */
async function certificate(muster) {
  const folder = await mkdtemp(join(tmpdir(), 'container-'));
  muster.closing(() => rm(folder, { recursive: true }));
  const [key, cert, config] = ['key', 'pem', 'cnf'].map((ending) => join(folder, `container.${ending}`));
  // The machine's own configuration would add extensions of its own.
  await writeFile(config, '[req]\ndistinguished_name=dn\n[dn]\n');
  const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  const named = ['-subj', '/CN=container', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const leaf = ['-addext', 'basicConstraints=critical,CA:FALSE', '-config', config];
  await promisify(execFile)('openssl', [...made, ...named, ...leaf, '-keyout', key, '-out', cert]);
  return { file: cert, tls: { transport: 'tls', key: await readFile(key), cert: await readFile(cert) } };
}

check(
  'messages reach an address of a container, and an event hub, as readers of telemetry know them',
  { ...SHOWS, feature: 'routes to an address, and to an event hub by its connection string' },
  async (muster) => {
    const container = new Container();
    const port = await container.listen();
    muster.closing(() => container.close());
    await route(muster, 'queue', `amqp://u:p%20w@127.0.0.1:${port}/queue/a`);
    const sender = await connect(muster, 'mqtt', 'dev-1', await create(muster, 'dev-1'));
    const sent = new device.Message('{"a":1}');
    sent.contentType = 'application/json';
    sent.properties.add('level', 'hot');
    sent.properties.add('$.schema', 'schema/1');
    sent.properties.add('$.diagctx', 'creationtimeutc=noon');
    await sender.sendEvent(sent);
    const [{ message, address }] = await container.take(1);
    assert.equal(address, 'queue/a');
    assert.equal(message.body.content.toString(), '{"a":1}');
    assert.equal(message.content_type, 'application/json');
    assert.deepEqual(message.application_properties, { level: 'hot', 'iothub-message-schema': 'schema/1' });
    assert.equal(message.message_annotations['iothub-connection-device-id'], 'dev-1');
    assert.equal(message.message_annotations['Correlation-Context'], 'creationtimeutc=noon');
    assert.equal(message.message_annotations['x-opt-partition-key'], 'dev-1');
    assert.match(message.message_id, /^hub-\d+-\d+-\d+$/);

    const parts = `Endpoint=sb://127.0.0.1:${port}/;SharedAccessKeyName=u;SharedAccessKey=p w;EntityPath=events`;
    await route(muster, 'eh', `${parts};UseDevelopmentEmulator=true`);
    await sender.sendEvent(new device.Message('both'));
    const all = await container.take(3);
    assert.deepEqual(new Set(all.slice(1).map(({ address: reached }) => reached)), new Set(['queue/a', 'events']));
  },
);

check(
  'a container that goes away and comes back gets everything in order, and what it rejects is kept apart',
  { ...SHOWS, feature: 'an absence of the container; a rejected message' },
  async (muster) => {
    const container = new Container();
    const port = await container.listen();
    await route(muster, 'queue', `amqp://u:p%20w@127.0.0.1:${port}/queue`);
    const sender = await connect(muster, 'mqtt', 'dev-1', await create(muster, 'dev-1'));
    await sender.sendEvent(new device.Message('0'));
    await container.take(1);
    await container.close();
    for (let number = 1; number < 100; number += 1) await sender.sendEvent(new device.Message(String(number)));
    container.refuses = (message) => message.body.content.toString() === '50';
    await container.listen(port);
    muster.closing(() => container.close());
    const expected = Array.from({ length: 100 }, (_, number) => String(number)).filter((text) => text !== '50');
    const everything = async () => {
      while (new Set(bodies(container.messages)).size < expected.length) {
        await container.take(container.messages.length + 1);
      }
    };
    await within(TOLD_MS, 'everything arrives', everything());
    const [letter] = await muster.command('endpoint', 'dead-letters', 'queue', '--hub', 'hub');
    assert.equal(letter.message.body, '50');
    assert.match(letter.reason, /amqp:decode-error: it is ugly/);
    // What stood behind the rejected one may come twice; what is seen for the first time comes in order.
    assert.deepEqual([...new Set(bodies(container.messages))], expected);
  },
);

check(
  'a container that gives a message back twice is asked again, each time later, and takes it',
  { ...SHOWS, feature: 'a message given back twice: sent again after growing pauses' },
  async (muster) => {
    await muster.restart({ MUSTER_OUTBOUND_PAUSE_MS: LONGER_MS });
    const container = new Container();
    container.returns = 2;
    const port = await container.listen();
    muster.closing(() => container.close());
    await route(muster, 'queue', `amqp://u:p%20w@127.0.0.1:${port}/queue`);
    const sender = await connect(muster, 'mqtt', 'dev-1', await create(muster, 'dev-1'));
    await sender.sendEvent(new device.Message('0'));
    await container.take(1);
    const taken = performance.now();
    const [first, second] = container.returned;
    // Each pause has its jitter, which takes at most half of it.
    assert.ok(second - first >= LONGER_MS / 2, `${second - first} ms`);
    assert.ok(taken - second >= LONGER_MS, `${taken - second} ms`);
    await sender.sendEvent(new device.Message('1'));
    assert.deepEqual(bodies(await container.take(2)), ['0', '1']);
    assert.deepEqual(await muster.command('endpoint', 'dead-letters', 'queue', '--hub', 'hub'), []);
  },
);

check(
  'a container that refuses the password is told of, and gets nothing',
  { ...SHOWS, feature: 'a wrong password' },
  async (muster) => {
    const container = new Container();
    const port = await container.listen();
    muster.closing(() => container.close());
    await route(muster, 'queue', `amqp://u:wrong@127.0.0.1:${port}/queue`);
    const sender = await connect(muster, 'mqtt', 'dev-1', await create(muster, 'dev-1'));
    await sender.sendEvent(new device.Message('x'));
    assert.match(await within(TOLD_MS, 'the refusal is told', failure(muster, 'queue')), /SASL/);
    assert.equal(container.messages.length, 0);
  },
);

check(
  'a container that speaks TLS gets messages where somebody vouches for it, and nowhere else',
  { ...SHOWS, feature: 'routes to an address over TLS' },
  async (muster) => {
    const { file, tls } = await certificate(muster);
    const container = new Container();
    const port = await container.listen(0, tls);
    muster.closing(() => container.close());
    await route(muster, 'trusted', `amqps://u:p%20w@127.0.0.1:${port}/trusted`, '--ca', file);
    await route(muster, 'unknown', `amqps://u:p%20w@127.0.0.1:${port}/unknown`);
    const sender = await connect(muster, 'mqtt', 'dev-1', await create(muster, 'dev-1'));
    await sender.sendEvent(new device.Message('x'));
    await container.take(1);
    const why = await within(TOLD_MS, 'the refusal is told', failure(muster, 'unknown'));
    assert.match(why, /TLS with 127\.0\.0\.1 fails/);
    assert.deepEqual(container.messages.map(({ address }) => address), ['trusted']);
  },
);

check(
  'an entity of a connection string is reached over TLS where somebody vouches for its server, and nowhere else',
  { ...SHOWS, feature: 'routes by a connection string of Service Bus and Event Hubs, over TLS' },
  async (muster) => {
    const { file, tls } = await certificate(muster);
    const container = new Container();
    const port = await container.listen(0, tls);
    muster.closing(() => container.close());
    const text = `Endpoint=sb://127.0.0.1:${port}/;SharedAccessKeyName=u;SharedAccessKey=p w;EntityPath=bus`;
    await route(muster, 'bus', text, '--ca', file);
    await route(muster, 'unknown', text.replace('=bus', '=unknown'));
    const sender = await connect(muster, 'mqtt', 'dev-1', await create(muster, 'dev-1'));
    await sender.sendEvent(new device.Message('x'));
    const [{ message, address }] = await container.take(1);
    assert.deepEqual([address, message.body.content.toString()], ['bus', 'x']);
    assert.equal(message.message_annotations['x-opt-partition-key'], 'dev-1');
    const why = await within(TOLD_MS, 'the refusal is told', failure(muster, 'unknown'));
    assert.match(why, /TLS with 127\.0\.0\.1 fails/);
    assert.equal(container.messages.length, 1);
  },
);
