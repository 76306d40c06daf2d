// rhea, an AMQP client that nobody made for Azure, at the AMQP port.

import '../trust.mjs';
import assert from 'node:assert/strict';
import { once } from 'node:events';
import rhea from 'rhea';
import { check, client } from '../muster.mjs';
import { within } from '../process.mjs';

const RHEA = client('rhea');
const TOLD_MS = 20_000;

/** Opens a connection without a name, or by the SASL mechanism that shows none. */
function open(muster, terms) {
  const { ports, hubs: [{ hostName: host }] } = muster.endpoints;
  return rhea.create_container().connect({ transport: 'tls', host, port: ports.amqps, reconnect: false, ...terms });
}

for (const [how, terms] of Object.entries({ 'by ANONYMOUS': { username: 'anonymous' }, 'without SASL': {} })) {
  check(
    `a client that was not made for Azure opens ${how}, is refused links in order, and leaves`,
    { ...RHEA, transport: 'amqp', credential: 'none', feature: `refusals in order, ${how}` },
    async (muster) => {
      const connection = open(muster, terms);
      await within(TOLD_MS, 'the connection is open', once(connection, 'connection_open'));
      const scope = muster.provisioning.idScope;
      for (const [address, condition] of [
        ['nobody/here', 'amqp:not-found'],
        [`${scope}/registrations/nobody`, 'amqp:unauthorized-access'],
      ]) {
        const fresh = open(muster, terms);
        await within(TOLD_MS, 'another is open', once(fresh, 'connection_open'));
        const sender = fresh.open_sender(address);
        await within(TOLD_MS, 'the link is refused', once(sender, 'sender_error'));
        assert.equal(sender.error.condition, condition);
        fresh.close();
        await within(TOLD_MS, 'the connection is closed', once(fresh, 'connection_close'));
      }
      connection.close();
      await within(TOLD_MS, 'the connection is closed', once(connection, 'connection_close'));
    },
  );
}
