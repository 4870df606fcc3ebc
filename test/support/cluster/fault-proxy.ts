import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { ClusterHost } from './cluster-host.ts';

/** What happens to connections that begin from now on; `afterBytes`: of what the caller sends, in TLS's bytes. */
export type FaultMode =
  | { readonly kind: 'pass' }
  | { readonly kind: 'cut'; readonly afterBytes: number }
  /** One bit is flipped. */
  | { readonly kind: 'corrupt'; readonly afterBytes: number }
  | { readonly kind: 'delay'; readonly ms: number }
  /** Everything that the caller sends comes a second time, on a connection of its own. */
  | { readonly kind: 'duplicate' };

export type ProxyCounts = {
  readonly connections: number;
  readonly cut: number;
  readonly corrupted: number;
  readonly duplicated: number;
};

/** A proxy in front of the port on which other nodes reach a host's plugin. */
export type FaultProxy = {
  set(mode: FaultMode): Promise<ProxyCounts>;
  counts(): Promise<ProxyCounts>;
  /** Calls and streams go straight to the plugin again. */
  close(): Promise<void>;
};

export const peerPort = 4270;
const listenPort = 14_270;

/** Only connections that begin later pass through it. */
export async function startFaultProxy(host: ClusterHost): Promise<FaultProxy> {
  const script = join(import.meta.dirname, 'fault-proxy-process.ts');
  const inside = ['-t', String(host.host.pid), '-n', '--', process.execPath, script];
  const child = spawn('nsenter', [...inside, String(listenPort), String(peerPort)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ask = async (line: string): Promise<ProxyCounts> => {
    child.stdin.write(`${line}\n`);
    const answer = await lines.next();
    if (answer.done === true) throw new Error('the fault proxy has ended');
    return JSON.parse(answer.value) as ProxyCounts;
  };
  const redirect = (action: '-I' | '-D') => {
    const match = ['-i', 'eth0', '-p', 'tcp', '--dport', String(peerPort)];
    const target = ['-j', 'REDIRECT', '--to-ports', String(listenPort)];
    return host.host.run('iptables', ['-w', '-t', 'nat', action, 'PREROUTING', ...match, ...target]);
  };
  await ask('?');
  await redirect('-I');
  return {
    set: (mode) => ask(JSON.stringify(mode)),
    counts: () => ask('?'),
    async close() {
      await redirect('-D');
      child.kill('SIGKILL');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    },
  };
}
