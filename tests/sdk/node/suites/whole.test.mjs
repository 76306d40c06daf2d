// What all suites together used of the packages of back-end programs; its name has it run last. A suite that is run alone
// keeps no results, and is not held to them.

import { readFileSync } from 'node:fs';
import { assertComplete } from '../covered.mjs';
import { client, record } from '../muster.mjs';

const RESULTS = process.env.MUSTER_SDK_RESULTS;

/** What the tests of Node's suites have shown so far in this run. */
function results() {
  const lines = readFileSync(RESULTS, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
  return lines.filter(({ suite }) => suite === 'node');
}

if (RESULTS) {
  for (const name of ['azure-iot-provisioning-service', 'azure-iothub']) {
    const shows = { ...client(name), transport: 'https', credential: 'policy', feature: 'methods: all used or listed' };
    record(`every method of ${name} is used or listed as not covered`, shows, () => assertComplete(name, results()));
  }
}
