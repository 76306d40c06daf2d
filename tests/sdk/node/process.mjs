// The server as a process: started from the binary, awaited until it says that it is ready, ended, its exit code checked.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';

const READY_MS = 20_000;
const STOP_MS = 20_000;

/** The program under test. */
export const BINARY = process.env.MUSTER_BIN ?? 'target/debug/muster';

/** Fails with `what` if a promise is not settled within some milliseconds. */
export async function within(milliseconds, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${milliseconds} ms`)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Starts a server on a data folder, in this environment and `settings`; its log stands in the file beside the folder. */
export async function launch(data, settings = {}) {
  await mkdir(data, { recursive: true });
  const log = `${data}.log`;
  const env = { ...process.env, ...settings };
  const server = spawn(BINARY, ['serve', '--data', data, '--strict'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  server.stderr.pipe(createWriteStream(log, { flags: 'a' }));
  const exited = once(server, 'exit').then(([status]) => status);
  const said = once(createInterface(server.stdout), 'line').then(([line]) => line.trim());
  try {
    const first = await within(READY_MS, 'the server is ready', Promise.race([said, exited]));
    assert.equal(first, 'ready', await readFile(log, 'utf8'));
  } catch (failure) {
    server.kill('SIGKILL');
    throw failure;
  }
  return { server, exited, data, log };
}

/** Asks a server to end, and expects a clean exit. */
export async function end({ server, exited, log }) {
  server.kill('SIGTERM');
  try {
    const status = await within(STOP_MS, 'the server has ended', exited);
    assert.equal(status, 0, await readFile(log, 'utf8'));
  } finally {
    server.kill('SIGKILL');
  }
}
