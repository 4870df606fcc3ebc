/**
 * Compiles OpenZFS' kernel modules from zfs-dkms against the headers of a Debian kernel, both of them only unpacked:
 * neither dkms nor headers have to be installed on this machine. Takes 2 to 7 minutes.
 */
import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { unpack } from '../../packaging/debian.ts';
import { createCommands } from '../../plugin/exec.ts';

const configureMs = 15 * 60_000;
const makeMs = 30 * 60_000;

/** What Debian's headers call by name: the kernel's own compiler, and libelf for the prebuilt objtool. */
export const buildPackages = ['gcc-12', 'make', 'libelf1'] as const;

const { run } = createCommands();
/** In the folder $1. A compiler says more than anybody keeps; only the end of it tells what went wrong. */
const logged = 'cd "$1"; shift; "$@" > build.log 2>&1 || { status=$?; tail -c 3000 build.log >&2; exit $status; }';

async function only(dir: string, pattern: RegExp): Promise<string> {
  const names = (await readdir(dir)).filter((name) => pattern.test(name));
  if (names.length !== 1 || names[0] === undefined)
    throw new Error(`expected one ${pattern.source} in ${dir}, found: ${names.join(' ') || 'none'}`);
  return join(dir, names[0]);
}

async function edit(path: string, change: (text: string) => string): Promise<void> {
  await writeFile(path, change(await readFile(path, 'utf8')));
}

export async function buildModules(debs: readonly string[], workDir: string, outDir: string): Promise<void> {
  await unpack(debs, workDir);
  const src = join(workDir, 'usr/src');
  const headers = await only(src, /^linux-headers-.*-cloud-amd64$/);
  const common = await only(src, /^linux-headers-.*-common$/);
  const zfs = await only(src, /^zfs-/);

  // The one absolute path in the headers; their links to scripts and tools are relative.
  await edit(join(headers, 'Makefile'), (text) => text.replaceAll('/usr/src/', `${src}/`));
  // Debug information doubles the compile time and would ask for pahole; nobody debugs these modules.
  await edit(join(headers, 'include/config/auto.conf'), (text) =>
    text.replace(/^CONFIG_(DEBUG_INFO|GDB_SCRIPTS).*\n/gm, ''),
  );

  // setpriv: the compilation of a killed test run stops too (configure: after its current step).
  const dying = ['setpriv', '--pdeathsig', 'TERM'];
  const nice = (args: readonly string[], timeoutMs: number): Promise<string> =>
    run('nice', ['-n', '5', ...dying, 'sh', '-c', logged, 'sh', zfs, ...dying, ...args], { timeoutMs });
  await nice(
    [
      './configure',
      '--disable-dependency-tracking',
      '--prefix=/usr',
      '--with-config=kernel',
      `--with-linux=${common}`,
      `--with-linux-obj=${headers}`,
    ],
    configureMs,
  );
  await nice(['make', '-s', `-j${availableParallelism()}`], makeMs);

  await mkdir(outDir, { recursive: true });
  const built = (await readdir(join(zfs, 'module'), { recursive: true })).filter((name) => name.endsWith('.ko'));
  if (!built.some((name) => basename(name) === 'zfs.ko')) throw new Error(`make left no zfs.ko in ${zfs}/module`);
  for (const name of built) await cp(join(zfs, 'module', name), join(outDir, basename(name)));
  await run('strip', ['--strip-debug', ...built.map((name) => join(outDir, basename(name)))], { timeoutMs: 60_000 });
  await rm(workDir, { recursive: true });
}
