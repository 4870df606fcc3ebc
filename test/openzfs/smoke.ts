/** Proof that the harness works: node test/openzfs/smoke.ts [zfs] [docker] [timeout] [2.3]; without names, all but the last. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runGuest } from './guest.ts';
import { defaultRelease, prepare, type ZfsRelease } from './prepare.ts';

const started = Date.now();
const log = (text: string): void => console.log(`${((Date.now() - started) / 1000).toFixed(1).padStart(6)} s  ${text}`);
const names = process.argv.slice(2);
const wanted = (name: string): boolean => !names.some((word) => !/^2\./.test(word)) || names.includes(name);
const release: ZfsRelease = names.includes('2.3') ? '2.3' : defaultRelease;

function check(condition: boolean, what: string): void {
  if (!condition) throw new Error(`smoke test failed: ${what}`);
}

async function boot(
  script: string,
  docker: boolean,
  timeoutMs: number,
): Promise<{ exitCode: number | null; files: Record<string, string> }> {
  await prepare({ docker, release, log });
  log(`${docker ? 'with' : 'without'} Docker: prepared`);
  const project = await mkdtemp(join(tmpdir(), 'flock-smoke-'));
  try {
    await writeFile(join(project, 'run.sh'), script);
    const result = await runGuest({ project, timeoutMs, docker, processors: 2, release });
    console.log(result.console.trim());
    log(`guest ended, status ${result.exitCode}`);
    const files: Record<string, string> = {};
    for (const name of await readdir(result.outDir)) files[name] = await readFile(join(result.outDir, name), 'utf8');
    await rm(result.outDir, { recursive: true });
    return { exitCode: result.exitCode, files };
  } finally {
    await rm(project, { recursive: true });
  }
}

const script = (name: string): Promise<string> => readFile(join(import.meta.dirname, 'smoke', name), 'utf8');

if (wanted('zfs')) {
  const { exitCode, files } = await boot(await script('zfs.sh'), false, 300_000);
  check(exitCode === 0, 'status of zfs.sh');
  check(files['version']?.includes(`zfs-kmod-${release}.`) === true, `kernel module ${release}`);
}
if (wanted('docker')) {
  const { exitCode, files } = await boot(await script('docker.sh'), true, 300_000);
  check(exitCode === 0, 'status of docker.sh');
  check(files['version']?.includes('Server:') === true, 'docker version of the server');
}
if (wanted('timeout')) {
  const { exitCode, files } = await boot('echo partial > /out/result; (exit 3); sleep 1000', false, 30_000);
  check(exitCode === null, 'a killed guest has no status');
  check(files['result'] === 'partial\n', 'a killed guest leaves its results');
}
log('smoke test passed');
