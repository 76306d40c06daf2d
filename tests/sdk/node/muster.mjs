// A Muster for each test: a fresh copy of the trusted data folder, a server on it, and the clients that a test opened.

import { origin } from './trust.mjs';
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { appendFile, cp, mkdtemp, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import { begin, pass } from './covered.mjs';
import { BINARY, end, launch, within } from './process.mjs';

const TEST_MS = 90_000;
const CLOSE_MS = 10_000;
const COMMAND_MS = 60_000;
const LEFT_OVER_MS = 2_000;

// Some clients leave timers behind, though they were closed: those of tokens keep a process for most of an hour.
after(() => setTimeout(() => process.exit(), LEFT_OVER_MS).unref());

const require = createRequire(import.meta.url);

/** Names an installed package for the results: `client` and `version`. */
export function client(name) {
  return { client: name, version: require(`${name}/package.json`).version };
}

/** One server process on its own data folder. */
export class Muster {
  #folder;
  #running;
  #closers = [];

  static async start() {
    const muster = new Muster();
    muster.#folder = await mkdtemp(join(tmpdir(), 'muster-node-'));
    try {
      await cp(origin, muster.data, { recursive: true });
      await muster.#start();
    } catch (failure) {
      await rm(muster.#folder, { recursive: true });
      throw failure;
    }
    return muster;
  }

  async #start(settings) {
    this.#running = await launch(this.data, settings);
    this.endpoints = JSON.parse(await readFile(join(this.data, 'endpoints.json'), 'utf8'));
  }

  /** Ends the server and starts it again on the same folder, with other settings if there are any. */
  async restart(settings) {
    await this.stop();
    await this.#start(settings);
  }

  /** Asks the server to end, and expects a clean exit. */
  async stop() {
    const running = this.#running;
    this.#running = undefined;
    await end(running);
    await assert.rejects(readFile(join(this.data, 'endpoints.json')), { code: 'ENOENT' });
  }

  /** Has `close` called when the test is over, whether it passed or not. */
  closing(close) {
    this.#closers.push(close);
  }

  /** Closes what the test opened, ends the server and removes its folder. */
  async end() {
    try {
      for (const close of this.#closers.reverse()) await within(CLOSE_MS, 'a client has closed', close());
    } finally {
      if (this.#running) await this.stop();
      await rm(this.#folder, { recursive: true });
    }
  }

  get data() {
    return join(this.#folder, 'data');
  }

  /** A folder for the test's own files. */
  get files() {
    return join(this.#folder, 'files');
  }

  /** The default provisioning service. */
  get provisioning() {
    return this.endpoints.provisioningServices[0];
  }

  /** The default hub. */
  get hub() {
    return this.endpoints.hubs[0];
  }

  /** What the server logged. */
  log() {
    return readFile(`${this.data}.log`, 'utf8');
  }

  /** Runs a command of the binary against this server, and reads what it prints. */
  async command(...args) {
    return JSON.parse(await this.#run(args));
  }

  /** Runs a command that prints nothing. */
  async quiet(...args) {
    assert.equal(await this.#run(args), '');
  }

  /** The first telemetry of the hub, once there is as much as `count`. */
  async telemetry(count) {
    const lines = await this.#run(['events', 'monitor', '--from', 'start', '--count', String(count)]);
    return lines.trim().split('\n').map((line) => JSON.parse(line));
  }

  async #run(args) {
    const globals = ['--data', this.data, '--output', 'json'];
    const { stdout } = await promisify(execFile)(BINARY, [...globals, ...args], { timeout: COMMAND_MS });
    return stdout;
  }

  /** Makes a certificate with `muster ca`, and reads its PEM, its chain and its key. */
  async certificate(kind, name, ...args) {
    await this.command('ca', kind, name, '--out', this.files, ...args);
    const base = args.includes('--file') ? args[args.indexOf('--file') + 1] : name;
    const read = (suffix) => readFile(join(this.files, `${base}${suffix}`), 'utf8');
    return { pem: await read('.pem'), chain: await read('.chain.pem'), key: await read('.key.pem') };
  }

  /** Uploads a CA certificate made here to a provisioning service or a hub, and proves possession of its key. */
  async prove(name, owner = ['--dps', this.provisioning.name]) {
    await this.command('certificate', 'create', name, ...owner, '--path', join(this.files, `${name}.pem`));
    const { properties } = await this.command('certificate', 'generate-verification-code', name, ...owner);
    const code = properties.verificationCode;
    await this.certificate('verification', code, '--issuer', name);
    return this.command('certificate', 'verify', name, ...owner, '--path', join(this.files, `${code}.pem`));
  }
}

/** Runs `body` against a fresh server as one test, and keeps what it shows. */
export function check(name, shows, body) {
  record(name, shows, async () => {
    const muster = await Muster.start();
    try {
      await within(TEST_MS, name, body(muster));
    } catch (failure) {
      process.stderr.write(await muster.log());
      throw failure;
    } finally {
      await muster.end();
    }
  });
}

/**
 * Runs `body` as one test. `shows` says which cell of docs/clients.md it is: client, version, transport, credential and
 * feature.
 */
export function record(name, shows, body) {
  test(name, async () => {
    const started = performance.now();
    begin();
    await body();
    const milliseconds = Math.round(performance.now() - started);
    await keep({ suite: 'node', test: name, milliseconds, ...shows, methods: pass() });
  });
}

async function keep(result) {
  if (process.env.MUSTER_SDK_RESULTS) await appendFile(process.env.MUSTER_SDK_RESULTS, `${JSON.stringify(result)}\n`);
}
