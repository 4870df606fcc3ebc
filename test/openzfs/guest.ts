/**
 * Boots Debian's kernel with the real OpenZFS module in QEMU, without KVM (a nested /dev/kvm hangs these kernels),
 * and runs a program in it. Everything there is about eight times slower than here.
 */
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createCommands } from '../../plugin/exec.ts';
import { ext4Image } from './image.ts';
import { type Prepared, prepare, type ZfsRelease } from './prepare.ts';

export type GuestOptions = {
  /** Becomes /project in the guest, a writable copy; its run.sh is run there as root. */
  readonly project: string;
  /** Of the guest's life, without the preparation before it. */
  readonly timeoutMs: number;
  /** Put Docker in the guest; run.sh starts it with start-dockerd. */
  readonly docker: boolean;
  readonly processors: number;
  readonly memoryMb?: number;
  /** Size of the disk whose partition /dev/vdd1 is meant for a pool. */
  readonly poolMb?: number;
  readonly release?: ZfsRelease;
  readonly log?: (text: string) => void;
};

export type GuestResult = {
  /** Of run.sh; null when the guest ended, or had to be killed, before it. */
  readonly exitCode: number | null;
  readonly console: string;
  /** What the guest left in /out; there even when it was killed. The caller removes it. */
  readonly outDir: string;
};

const { run } = createCommands();
const outMb = 1024;
const projectFreeMb = 512;
const sectorBytes = 512;

/** A sparse disk with one partition. Without udev, zpool create can't partition a whole disk by itself. */
async function makePoolDisk(path: string, sizeMb: number): Promise<void> {
  const sectors = (sizeMb * 1024 * 1024) / sectorBytes;
  const first = 2048;
  const mbr = Buffer.alloc(sectorBytes);
  mbr.writeUInt8(0xbf, 446 + 4); // type: Solaris, which ZFS took over
  mbr.writeUInt32LE(first, 446 + 8);
  mbr.writeUInt32LE(sectors - first, 446 + 12);
  mbr.writeUInt16LE(0xaa55, 510);
  const disk = await open(path, 'w');
  await disk.write(mbr);
  await disk.truncate(sectors * sectorBytes);
  await disk.close();
}

function qemuArguments(boot: Prepared, dir: string, processors: number, memoryMb: number): string[] {
  const disk = (id: string, file: string, more = ''): string[] => [
    '-drive',
    `file=${file},if=none,id=${id},format=raw,cache=unsafe${more}`,
    '-device',
    `virtio-blk-pci,drive=${id}`,
  ];
  return [
    '-M',
    'q35',
    '-nodefaults',
    '-vga',
    'none',
    '-display',
    'none',
    '-no-reboot',
    '-nic',
    'none',
    '-accel',
    'tcg,thread=multi',
    '-cpu',
    'max',
    '-smp',
    String(processors),
    '-m',
    String(memoryMb),
    '-kernel',
    boot.kernel,
    '-initrd',
    boot.initrd,
    '-append',
    'console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on',
    '-chardev',
    `file,id=console,path=${dir}/console`,
    '-serial',
    'chardev:console',
    '-chardev',
    `file,id=status,path=${dir}/status`,
    '-serial',
    'chardev:status',
    ...disk('root', boot.root, ',snapshot=on'), // guests share the image; what one writes ends with it
    ...disk('project', join(dir, 'project.img')),
    ...disk('out', join(dir, 'out.img')),
    ...disk('pool', join(dir, 'pool.img'), ',discard=unmap'),
  ];
}

/** Resolves when QEMU has ended, by itself or at the end of its time; answers why, or '' when all went well. */
function runQemu(args: readonly string[], dir: string, timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    // setpriv execs QEMU, so the child's pid is QEMU's. It must not outlive a killed test run. Not with nice: what runs in the guest,
    // such as Docker, has time limits that a busy machine would break.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, TMPDIR: dir },
    });
    let complaint = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      complaint += text;
    });
    const kill = (): void => {
      child.kill('SIGKILL');
    };
    const timer = setTimeout(() => {
      complaint += `killed: no end within ${timeoutMs} ms\n`;
      kill();
    }, timeoutMs);
    process.once('exit', kill);
    const done = (): void => {
      clearTimeout(timer);
      process.off('exit', kill);
    };
    child.once('error', (error) => {
      done();
      reject(error);
    });
    child.once('close', () => {
      done();
      resolve(complaint);
    });
  });
}

export async function runGuest(options: GuestOptions): Promise<GuestResult> {
  const boot = await prepare(options);
  const dir = await mkdtemp(join(tmpdir(), 'flock-guest-'));
  try {
    const empty = join(dir, 'empty');
    await mkdir(empty);
    await ext4Image(options.project, join(dir, 'project.img'), projectFreeMb);
    await ext4Image(empty, join(dir, 'out.img'), outMb);
    await makePoolDisk(join(dir, 'pool.img'), options.poolMb ?? 4096);
    const complaint = await runQemu(
      qemuArguments(boot, dir, options.processors, options.memoryMb ?? (options.docker ? 3072 : 2048)),
      dir,
      options.timeoutMs,
    );
    const read = (name: string): Promise<string> => readFile(join(dir, name), 'utf8').catch(() => '');
    const code = /^EXIT=(\d+)/m.exec(await read('status'))?.[1];
    const outDir = await mkdtemp(join(tmpdir(), 'flock-guest-out-'));
    await run('debugfs', ['-R', `rdump / ${outDir}`, join(dir, 'out.img')], { timeoutMs: 5 * 60_000 });
    await rm(join(outDir, 'lost+found'), { recursive: true, force: true });
    const output = (await read('console')).replaceAll('\r', '');
    return {
      exitCode: code === undefined ? null : Number(code),
      console: complaint === '' ? output : `${output}\nqemu: ${complaint}`,
      outDir,
    };
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
