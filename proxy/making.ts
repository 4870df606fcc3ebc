import { mkdirSync } from 'node:fs';
import { createCommands } from '../plugin/exec.ts';
import { createGate } from './gate/gate.ts';
import { emptyTable } from './model/table.ts';
import type { StackWorld } from './program.ts';
import { createHaproxyLayer } from './stack/haproxy/haproxy.ts';
import { receiveRequestLog, sampledEvery } from './stack/haproxy/request-log.ts';
import { createKernelLayer } from './stack/kernel/kernel.ts';
import { createStack, type Stack } from './stack/stack.ts';

/** On the host's loopback address; below 1024, so that no program without privileges can take it and read along. Not assigned by IANA. */
const requestLogPort = 823;

/** The gate and the layers before it, or, where the settings of this host want that, the gate alone. */
export function makeStack(world: StackWorld): Stack {
  const { paths, settings, observe, isLogged, secureContext, certificate, containers, log } = world;
  if (settings.embedded)
    return createStack({ gate: createGate({ certificate: secureContext, observe, inner: true }), layers: [] });
  mkdirSync(paths.gate, { recursive: true, mode: 0o700 });
  const gate = createGate({ certificate: secureContext, observe, behind: paths.gate });
  const commands = createCommands();
  const kernel = createKernelLayer({ commands, folder: paths.kernel, hostRoot: paths.hostRoot, containers });
  const every = () => (isLogged() ? 1 : sampledEvery);
  const haproxy = createHaproxyLayer({
    folder: paths.haproxy,
    gateFolder: paths.gate,
    certificate,
    log: () => ({ port: requestLogPort, every: every() }),
  });
  const stack = createStack({ gate, layers: [kernel, haproxy] });
  let table = emptyTable;
  const receiver = receiveRequestLog({
    port: requestLogPort,
    table: () => table,
    every,
    observe,
    onProblem: (reason) => log.warn({ event: 'requests.uncounted', reason }, 'everything else works'),
  });
  return {
    ...stack,
    apply(next) {
      table = next;
      return stack.apply(next);
    },
    async close(graceMs) {
      receiver.close();
      await stack.close(graceMs);
    },
  };
}
