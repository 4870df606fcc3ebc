import { mkdirSync } from 'node:fs';
import { createCommands } from '../plugin/exec.ts';
import { createGate } from './gate/gate.ts';
import type { StackWorld } from './program.ts';
import { createHaproxyLayer } from './stack/haproxy/haproxy.ts';
import { createKernelLayer } from './stack/kernel/kernel.ts';
import { createStack, type Stack } from './stack/stack.ts';

/** The gate and the layers before it, or, where the settings of this host want that, the gate alone. */
export function makeStack(world: StackWorld): Stack {
  const { paths, settings, observe, secureContext, certificate, containers } = world;
  if (settings.embedded)
    return createStack({ gate: createGate({ certificate: secureContext, observe, inner: true }), layers: [] });
  mkdirSync(paths.gate, { recursive: true, mode: 0o700 });
  const gate = createGate({ certificate: secureContext, observe, behind: paths.gate });
  const commands = createCommands();
  const kernel = createKernelLayer({ commands, folder: paths.kernel, hostRoot: paths.hostRoot, containers });
  const haproxy = createHaproxyLayer({ folder: paths.haproxy, gateFolder: paths.gate, certificate });
  return createStack({ gate, layers: [kernel, haproxy] });
}
