// Which methods of a client package the tests have used: recorded as they are called, and held against what the package
// exports. Every method is either used by a test that passed or listed in not-covered.json with the reason.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const NOT_COVERED = JSON.parse(readFileSync(new URL('not-covered.json', import.meta.url), 'utf8'));

/** Used by the running test. */
const used = new Set();

/** Stands before a client or what a package exports, and notes which methods succeed; the call itself is untouched. */
export function watched(client, owner = typeof client === 'function' ? client.name : client.constructor.name) {
  const get = (target, member) => {
    const found = target[member];
    if (typeof found !== 'function' || isPrivate(member)) return found;
    return (...args) => note(`${owner}.${member}`, found.apply(target, args));
  };
  return new Proxy(client, { get });
}

function note(method, result) {
  if (typeof result?.then === 'function') return result.then((value) => note(method, value));
  used.add(method);
  return result;
}

/** Forgets what a test before this one used, if that has not passed. */
export function begin() {
  used.clear();
}

/** Names what the running test used by package. */
export function pass() {
  const of = (name) => exported(name).filter((method) => used.has(method)).sort();
  const packages = Object.keys(NOT_COVERED).map((name) => [name, of(name)]);
  return Object.fromEntries(packages.filter(([, methods]) => methods.length > 0));
}

/**
 * Expects of each method of a package that a test has used it or that it is listed with its reason, and never both.
 * `results` are those of all tests that passed, whatever file they stand in.
 */
export function assertComplete(name, results) {
  const covered = new Set(results.flatMap(({ methods }) => methods?.[name] ?? []));
  const listed = Object.keys(NOT_COVERED[name]);
  const expected = exported(name).filter((method) => !listed.includes(method));
  assert.deepEqual(expected.filter((method) => !covered.has(method)), [], 'exported, neither used nor listed');
  assert.deepEqual(listed.filter((method) => covered.has(method)), [], 'listed, but used');
  assert.deepEqual(listed.filter((method) => !exported(name).includes(method)), [], 'listed, but not exported');
}

/** Every method that a package exports, static or not, as `Class.method`. */
function exported(name) {
  return Object.entries(require(name)).flatMap(([owner, value]) => {
    const members = typeof value === 'function' ? [...callable(value), ...callable(value.prototype)] : callable(value);
    return members.map((member) => `${owner}.${member}`);
  });
}

function callable(owner) {
  const isMethod = (member) => member !== 'constructor' && !isPrivate(member) && typeof owner[member] === 'function';
  return Object.getOwnPropertyNames(owner).filter((member) => !isStrict(owner, member) && isMethod(member));
}

/** Whether reading a member throws, as `caller` and `arguments` of a function in strict mode do. */
function isStrict(owner, member) {
  return typeof owner === 'function' && ['arguments', 'caller'].includes(member);
}

function isPrivate(member) {
  return typeof member !== 'string' || member.startsWith('_');
}
