import assert from 'node:assert/strict';
import { createSecureContext } from 'node:tls';
import { createGate } from '../../proxy/gate/gate.ts';
import { emptyTable } from '../../proxy/model/table.ts';
import { gateContract } from './gate.ts';
import { ask, freePort, httpBackend, testCertificate } from './gate-support.ts';

gateContract('the gate alone', async (limits) => {
  const context = createSecureContext(testCertificate());
  const gate = createGate({ limits, certificate: (name) => (name === 'test' ? context : null) });
  return { ...gate, dispose: () => gate.close(0) };
});

describe('inner ports of the gate alone', () => {
  it('lead to a container, for the nodes of the cluster only', async () => {
    const ends: (() => unknown)[] = [];
    const backend = await httpBackend({ later: (end) => ends.push(end) }, (_req, res) => res.end('inner'));
    const gate = createGate({ inner: true });
    try {
      const port = await freePort();
      const inner = new Map([[port, { id: 'web-1', host: '127.0.0.1', port: backend.port }]]);
      await gate.apply({ ...emptyTable, generation: 1, inner, peers: ['127.0.0.1'] });
      assert.equal((await ask(port)).body, 'inner');
      await gate.apply({ ...emptyTable, generation: 2, inner, peers: ['192.0.2.1'] });
      await assert.rejects(ask(port), { code: 'ECONNRESET' });
      await gate.apply({ ...emptyTable, generation: 3 });
      await assert.rejects(ask(port), { code: 'ECONNREFUSED' });
    } finally {
      await gate.close(0);
      for (const end of ends) await end();
    }
  });
});
