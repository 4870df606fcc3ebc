import { createSecureContext } from 'node:tls';
import { createGate } from '../../proxy/gate/gate.ts';
import { gateContract } from './gate.ts';
import { testCertificate } from './gate-support.ts';

gateContract('the gate alone', async (limits) => {
  const context = createSecureContext(testCertificate());
  const gate = createGate({ limits, certificate: (name) => (name === 'test' ? context : null) });
  return { ...gate, dispose: () => gate.close(0) };
});
