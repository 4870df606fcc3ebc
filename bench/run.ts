import { spawn } from 'node:child_process';
import { cpus, loadavg, release } from 'node:os';
import { join } from 'node:path';
import { ensureInstalled } from '../packaging/debian.ts';
import { rootfsDir } from '../packaging/paths.ts';
import { buildProxyRootfs, buildRootfs } from '../packaging/rootfs.ts';
import { describeSize } from '../packaging/size.ts';
import { requireRoot, runProgram } from '../packaging/steps.ts';
import { type Backend, backends, type PluginHost, startPluginHost } from '../test/support/plugin-host.ts';
import { benchAnswers } from './answers.ts';
import { benchDockerRun } from './docker-run.ts';
import { benchFileIo } from './file-io.ts';
import { benchOperations } from './operations.ts';
import { type Row, table } from './report.ts';
import { benchStart } from './start.ts';

/**
 * Measures flock's speed on a test host of each backend: `run.ts [NAME...]` with names of benchmarks and backends, all by default. A target that is missed is
 * printed and fails nothing; the exit status is 1 only if something could not be measured.
 */

type Bench = { readonly name: string; readonly run: (flock: PluginHost) => Promise<readonly Row[]> };

/** In this order: the later ones leave the host full of volumes. */
const benches: readonly Bench[] = [
  { name: 'docker-run', run: benchDockerRun },
  { name: 'operations', run: benchOperations },
  { name: 'file-io', run: benchFileIo },
  { name: 'answers', run: benchAnswers },
  { name: 'start', run: benchStart },
];

const packages = ['docker.io', 'tini', 'iptables', 'iproute2', 'busybox-static', 'btrfs-progs', 'zfs-fuse', 'fio'];
const minuteMs = 60_000;
const limitMs = 12 * minuteMs;
const inNamespace = '--in-namespace';

async function main(args: readonly string[]): Promise<void> {
  requireRoot();
  const names = args.filter((name) => name !== inNamespace);
  const known = [...benches.map(({ name }) => name), ...backends];
  const unknown = names.find((name) => !known.some((candidate) => candidate === name));
  if (unknown !== undefined) throw new Error(`there is no benchmark "${unknown}": ${known.join(', ')}`);
  if (args.includes(inNamespace)) {
    return await measure(
      chosen(backends, names, (name) => name),
      chosen(benches, names, ({ name }) => name),
    );
  }
  const installed = await ensureInstalled(packages);
  if (installed.length > 0) console.log(`installed ${installed.join(', ')}`);
  await buildRootfs();
  await buildProxyRootfs();
  await runInNamespace(names);
  console.log(`\nroot file system: ${await describeSize(rootfsDir)}`);
}

/** Those that were named; all where none was. */
function chosen<T>(all: readonly T[], names: readonly string[], nameOf: (one: T) => string): readonly T[] {
  const named = all.filter((one) => names.includes(nameOf(one)));
  return named.length === 0 ? all : named;
}

/** Whatever is mounted and started dies with these namespaces: without one of their own for processes, hosts outlive a kill. */
function runInNamespace(names: readonly string[]): Promise<void> {
  const isolation = ['--mount', '--propagation', 'private', '--pid', '--mount-proc', '--fork', '--kill-child'];
  const self = [process.execPath, join(import.meta.dirname, 'run.ts'), inNamespace, ...names];
  return new Promise((done, failed) => {
    const child = spawn('unshare', [...isolation, ...self], {
      stdio: 'inherit',
      timeout: limitMs,
      killSignal: 'SIGKILL',
    });
    child.on('error', failed);
    child.on('exit', (code, signal) => {
      if (signal !== null) process.exitCode = 1;
      else process.exitCode = code ?? 1;
      if (signal !== null) console.log(`ended by ${signal} after at most ${limitMs / minuteMs} minutes`);
      done();
    });
  });
}

async function measure(wantedBackends: readonly Backend[], wanted: readonly Bench[]): Promise<void> {
  console.log(`${cpus().length} processors, Linux ${release()}, Node ${process.version}`);
  for (const backend of wantedBackends) {
    try {
      await measureOn(backend, wanted);
    } catch (error) {
      failed(backend, error);
    }
  }
}

async function measureOn(backend: Backend, wanted: readonly Bench[]): Promise<void> {
  const flock = await startPluginHost(backend, 'pool-size=2G');
  try {
    for (const { name, run } of wanted) {
      const before = loadavg()[0] ?? 0;
      const startMs = performance.now();
      console.log(`\n## ${name} (${backend})\n`);
      try {
        const rows = await run(flock);
        console.log(`\n${table(rows)}`);
      } catch (error) {
        failed(`${name} (${backend})`, error);
      }
      const after = loadavg()[0] ?? 0;
      const took = Math.round((performance.now() - startMs) / 1000);
      console.log(`\n${took} s; load of the machine ${before.toFixed(1)} before, ${after.toFixed(1)} after`);
    }
  } finally {
    await flock.dispose();
  }
}

function failed(what: string, error: unknown): void {
  console.log(`${what} could not be measured: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}

await runProgram(() => main(process.argv.slice(2)));
