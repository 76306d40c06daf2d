// Makes this process trust the servers it starts: import it before anything else.
//
// Node reads NODE_EXTRA_CA_CERTS once, before any script runs, and the provisioning client offers no other way to name
// a CA. So the first process lets the binary make a data folder, and runs itself again with that folder's CA trusted;
// every server of the second process works on a copy of the folder. Nothing of the SDKs is touched.

import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { launch, end } from './process.mjs';

const ORIGIN = 'MUSTER_NODE_ORIGIN';

/** The data folder whose CA this process trusts. */
export const origin = process.env[ORIGIN] ?? (await runAgain());

async function runAgain() {
  const folder = await mkdtemp(join(tmpdir(), 'muster-node-'));
  const data = join(folder, 'data');
  const server = await launch(data);
  await end(server);
  const env = { ...process.env, [ORIGIN]: data, NODE_EXTRA_CA_CERTS: join(data, 'ca.pem') };
  const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], { env, stdio: 'inherit' });
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
  const code = await new Promise((resolve) => child.once('exit', (status) => resolve(status ?? 1)));
  await rm(folder, { recursive: true });
  process.exit(code);
}
