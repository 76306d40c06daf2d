// rhea, an AMQP client that nobody made for Azure, as a device or a back-end program of these suites.

import assert from 'node:assert/strict';
import { createHmac, randomUUID } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import rhea from 'rhea';
import { within } from './process.mjs';

const TOLD_MS = 20_000;
const TOKEN_S = 600;
const SECOND_MS = 1_000;

/** A shared access signature over a resource; a key of Event Hubs signs by its text. */
export function signature(resource, key, policy) {
  const encoded = encodeURIComponent(resource);
  const expiry = Math.floor(Date.now() / SECOND_MS) + TOKEN_S;
  const signed = createHmac('sha256', key).update(`${encoded}\n${expiry}`).digest('base64');
  const named = policy === undefined ? '' : `&skn=${policy}`;
  return `SharedAccessSignature sr=${encoded}&sig=${encodeURIComponent(signed)}&se=${expiry}${named}`;
}

/** A body of one section of data. */
export const data = (text) => rhea.message.data_section(Buffer.from(text));

/** The text of such a body. */
export const text = ({ body }) => body.content.toString();

/** What arrives on a link, in order. */
class Receiver {
  #arrived = [];
  #changed = new EventEmitter();
  #ended;

  constructor(link) {
    this.link = link;
    link.on('message', (event) => {
      this.#arrived.push(event);
      this.#changed.emit('change');
    });
    link.on('receiver_error', () => {
      this.#ended = link.error;
      this.#changed.emit('change');
    });
  }

  /** How many messages have come that nobody has taken. */
  get arrived() {
    return this.#arrived.length;
  }

  /** The next message with its delivery, for which it makes credit. Fails with why the link has ended, if it has. */
  async next() {
    this.link.add_credit(1);
    const first = async () => {
      while (this.#arrived.length === 0) {
        if (this.#ended) throw this.#ended;
        await once(this.#changed, 'change');
      }
      return this.#arrived.shift();
    };
    return within(TOLD_MS, 'a message arrives', first());
  }

  /** The next message, accepted. */
  async take() {
    const { message, delivery } = await this.next();
    delivery.accept();
    return message;
  }

  /** Has the other end use or give up all credit, and `more` of it; this client asks for that only with some more. */
  async drain(more = 1) {
    const drained = once(this.link, 'receiver_drained');
    this.link.drain = true;
    this.link.add_credit(more);
    await within(TOLD_MS, 'the credit is given up', drained);
    this.link.drain = false;
  }

  /** Why the link ends, in one word. */
  async refusal() {
    const failure = await this.next().then(() => undefined, (ended) => ended);
    return failure?.condition;
  }
}

/** A connection of rhea: by SASL PLAIN if there is a password, else as nobody, with tokens to be put. */
export class Peer {
  static async open(muster, host, terms = { username: 'anonymous' }) {
    const port = muster.endpoints.ports.amqps;
    const connection = rhea.create_container().connect({ transport: 'tls', host, port, reconnect: false, ...terms });
    const refused = once(connection, 'connection_error').then(([{ error }]) => Promise.reject(error));
    await within(TOLD_MS, 'the connection is open', Promise.race([once(connection, 'connection_open'), refused]));
    refused.catch(() => {});
    const peer = new Peer(connection);
    muster.closing(() => peer.close());
    return peer;
  }

  constructor(connection) {
    this.connection = connection;
  }

  async close() {
    if (this.connection.is_closed()) return;
    const closed = once(this.connection, 'connection_close');
    this.connection.close();
    await closed;
  }

  /** Attaches a link that sends; fails with why it is refused. */
  async sender(target, terms = {}) {
    const link = this.connection.open_sender({ target, ...terms });
    const refused = once(link, 'sender_error').then(() => Promise.reject(link.error));
    await within(TOLD_MS, 'the link is attached', Promise.race([once(link, 'sendable'), refused]));
    refused.catch(() => {});
    return link;
  }

  /** Attaches a link that receives, with nothing settled by itself. */
  receiver(source, terms = {}) {
    return new Receiver(this.connection.open_receiver({ source, credit_window: 0, autoaccept: false, ...terms }));
  }

  /** Sends a message, or the bytes of a transfer of some format; gives what became of it: its outcome, and why. */
  async send(link, message, format) {
    const settled = once(link, 'settled');
    link.send(message, undefined, format);
    const [{ delivery }] = await within(TOLD_MS, 'the message is settled', settled);
    const { remote_state: state } = delivery;
    return { outcome: state.constructor.composite_type, condition: state.error?.condition };
  }

  /** Asks a node, and gives its answer. */
  async call(node, question) {
    const answers = this.receiver(node);
    const questions = await this.sender(node);
    const asked = randomUUID();
    await this.send(questions, { ...question, message_id: asked });
    const answer = await answers.take();
    assert.equal(answer.correlation_id, asked);
    questions.close();
    answers.link.close();
    return answer;
  }

  /** Puts a token, and gives the status of the answer. */
  async putToken(name, token) {
    const said = { operation: 'put-token', type: 'servicebus.windows.net:sastoken', name };
    const answer = await this.call('$cbs', { application_properties: said, body: token });
    return answer.application_properties['status-code'];
  }
}
