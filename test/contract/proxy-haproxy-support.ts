import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Certificate } from '../../proxy/certificates.ts';
import type { GateLimits } from '../../proxy/gate/limits.ts';
import type { Table } from '../../proxy/model/table.ts';
import { parseProcesses } from '../../proxy/stack/haproxy/commands.ts';
import { createHaproxyLayer } from '../../proxy/stack/haproxy/haproxy.ts';
import { createMaster } from '../../proxy/stack/haproxy/master.ts';
import { type RequestLog, sampledEvery } from '../../proxy/stack/haproxy/request-log.ts';
import type { Layer } from '../../proxy/stack/layer.ts';
import { type Context, testCertificate } from './gate-support.ts';

/** A real HAProxy that is started again when it ends, as its container is, and a layer that drives it. */
export type HaproxyUnderTest = {
  readonly layer: Layer;
  readonly gateFolder: string;
  readonly folder: string;
  /** Applies until it succeeds, as the stack does. */
  apply(table: Table): Promise<void>;
  /** Another process's layer on the same HAProxy. */
  another(): Layer;
  /** What HAProxy's current worker answers. */
  command(text: string): Promise<string>;
  /** It is started again after this time. */
  kill(downMs?: number): void;
  output(): string;
};

/** Discard (RFC 863): nobody listens there. */
const unread = 9;

const restartMs = 100;

export async function startHaproxy(
  context: Pick<Context, 'later'>,
  options: {
    readonly limits?: Partial<GateLimits>;
    readonly certificate?: (name: string) => Certificate | null;
    readonly log?: () => RequestLog;
  } = {},
): Promise<HaproxyUnderTest> {
  const root = await mkdtemp(join(tmpdir(), 'flock-haproxy-'));
  const [folder, gateFolder] = [join(root, 'haproxy'), join(root, 'gate')];
  await mkdir(folder);
  await mkdir(gateFolder);
  let [output, isOver, downMs] = ['', false, restartMs];
  let child: ChildProcess;
  const start = () => {
    const main = join(import.meta.dirname, '../../proxy/haproxy-main.ts');
    const args = [main, join(folder, 'haproxy.cfg'), '-W', '-db', '-S', `${join(folder, 'master.sock')},mode,600`];
    child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr])
      stream?.on('data', (piece) => {
        output = `${output}${piece}`.slice(-4096);
      });
    child.once('exit', () => {
      if (!isOver) setTimeout(start, downMs);
      downMs = restartMs;
    });
  };
  start();
  const parts = {
    folder,
    gateFolder,
    log: options.log ?? (() => ({ port: unread, every: sampledEvery })),
    certificate: options.certificate ?? ((name: string) => (name === 'test' ? ownCertificate() : null)),
    ...(options.limits === undefined ? {} : { limits: options.limits }),
  };
  const layer = createHaproxyLayer(parts);
  context.later(async () => {
    await layer.close();
    isOver = true;
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    await rm(root, { recursive: true, force: true });
  });
  return {
    layer,
    folder,
    gateFolder,
    async apply(table) {
      const end = performance.now() + 10_000;
      for (;;) {
        try {
          return await layer.apply(table);
        } catch (error) {
          if (performance.now() > end) throw new Error(`${error}\n${output}`);
          await sleep(50);
        }
      }
    },
    another: () => createHaproxyLayer(parts),
    async command(text) {
      const master = createMaster(join(folder, 'master.sock'));
      const pid = parseProcesses(await master.processes())?.workers.find(({ isOld }) => !isOld)?.pid ?? 0;
      return (await master.ask(pid, [text])).join('');
    },
    kill(forMs = restartMs) {
      downMs = forMs;
      child.kill('SIGKILL');
    },
    output: () => output,
  };
}

export function ownCertificate(): Certificate {
  const { key, cert } = testCertificate();
  return { key, certificate: cert };
}
