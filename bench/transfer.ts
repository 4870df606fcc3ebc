import { type ChildProcess, execFile, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { promisify } from 'node:util';
import { Router } from 'express';
import type { VolumeDoc } from '../controller/model/cluster.ts';
import type { NodeIdentity } from '../controller/model/identity.ts';
import { parseDatasetId, parseSnapshotName, parseVolumeName } from '../controller/model/names.ts';
import { noOptions } from '../controller/model/options.ts';
import { requireRoot, runProgram } from '../packaging/steps.ts';
import { createCommands } from '../plugin/exec.ts';
import { createCarriers } from '../plugin/peer/carrier.ts';
import { createPeerClient } from '../plugin/peer/client.ts';
import { createDoor, createShutDoors } from '../plugin/peer/door.ts';
import { createPacer } from '../plugin/peer/pacing.ts';
import { createPartials } from '../plugin/peer/partials.ts';
import { receiveSnapshot } from '../plugin/peer/receiver.ts';
import { sendSnapshot } from '../plugin/peer/sender.ts';
import { startPeerServer } from '../plugin/peer/server.ts';
import { type BtrfsConfig, createBtrfs } from '../plugin/storage/btrfs/btrfs.ts';
import type { Storage } from '../plugin/storage/storage.ts';
import { createZfs, type ZfsConfig } from '../plugin/storage/zfs/zfs.ts';
import { openBtrfsPool } from '../test/support/btrfs-pool.ts';
import { log } from '../test/support/cluster-hosts.ts';
import { carrierScript, makeIdentities, plainCopies, receiver, sender } from '../test/support/peer-pair.ts';
import { startZfsFuse } from '../test/support/zfs-fuse.ts';
import { median, medianRatio, timed } from './measure.ts';
import { figureRow, ms, type Row, ratioRow, table } from './report.ts';

/**
 * Measures streams between two nodes, two processes with a pool each on one machine, against the storage's own commands in a pipe, in turns:
 * `transfer.ts [btrfs|zfs] [MEGABYTES]`. Both pools, both processes and all encryption share the processors of this machine, which two hosts
 * do not: a ratio here is the least that is to be expected.
 */

type Config =
  | { readonly kind: 'btrfs'; readonly config: BtrfsConfig }
  | { readonly kind: 'zfs'; readonly config: ZfsConfig };
type Asked =
  | {
      readonly ask: 'start';
      readonly identity: NodeIdentity;
      readonly pool: Config;
      readonly folder: string;
      readonly encrypted: boolean;
    }
  | { readonly ask: 'encrypt'; readonly on: boolean }
  | { readonly ask: 'destroy' | 'delay' };
/** Two pools, and the commands that bring a snapshot from one to the other without flock. */
type Pools = {
  readonly from: Config;
  readonly to: Config;
  readonly source: Storage;
  raw(name: string): Promise<void>;
  /** Destroys the copy; null: its storage can. */
  readonly clear: (() => Promise<unknown>) | null;
  /** Unmounts what the storage leaves mounted. */
  rest(): Promise<void>;
  dispose(): Promise<void>;
};

const id = parseDatasetId('bench.00000001');
const rounds = 3;
const increments = 9;
const never = new AbortController().signal;
const inNamespace = '--in-namespace';
const run = promisify(execFile);
const options = {
  ...{ quotaBytes: null, compression: null, recordSizeBytes: null, mode: null, uid: null, gid: null },
  ...{ properties: {}, stamp: '{}' },
};

function openStorage({ kind, config }: Config): Storage {
  return kind === 'btrfs' ? createBtrfs(config, createCommands()) : createZfs(config, createCommands());
}

async function main(args: readonly string[]): Promise<void> {
  requireRoot();
  if (!args.includes(inNamespace)) {
    const isolation = ['--mount', '--propagation', 'private', '--pid', '--mount-proc', '--fork', '--kill-child'];
    const self = [process.execPath, join(import.meta.dirname, 'transfer.ts'), inNamespace, ...args];
    const [code] = await once(spawn('unshare', [...isolation, ...self], { stdio: 'inherit' }), 'exit');
    process.exitCode = code ?? 1;
    return;
  }
  const bytes = Number(args.find((text) => /^\d+$/.test(text)) ?? 500) * 1e6;
  const wanted = args.filter((name) => name === 'btrfs' || name === 'zfs');
  console.log(`${cpus().length} processors, Linux ${release()}, Node ${process.version}`);
  for (const backend of wanted.length === 0 ? ['btrfs', 'zfs'] : wanted) {
    const pools = backend === 'btrfs' ? await btrfsPools(bytes) : await zfsPools(bytes);
    try {
      console.log(`\n## transfer (${backend})\n\n${table(await measure(pools, bytes))}`);
    } finally {
      await pools.dispose();
    }
  }
}

async function measure(pools: Pools, bytes: number): Promise<readonly Row[]> {
  const folder = await mkdtemp(join(tmpdir(), 'flock-transfer-'));
  const { one, two } = makeIdentities();
  const child = fork(join(import.meta.dirname, 'transfer.ts'), ['--receiver'], { stdio: 'inherit' });
  try {
    const there = join(folder, 'there');
    const port = await ask(child, { ask: 'start', identity: two, pool: pools.to, folder: there, encrypted: true });
    const client = createPeerClient({ identity: one, resolve: () => ({ address: '127.0.0.1', port }) });
    let isEncrypted = true;
    const { source } = pools;
    const pacer = createPacer(() => null);
    const carriers = createCarriers({ script: carrierScript });
    const shutDoors = createShutDoors();
    const parts = { client, storage: source, folder, pacer, isEncrypted: () => isEncrypted, carriers, shutDoors };
    const doc: VolumeDoc = {
      ...{ id, name: parseVolumeName('bench'), createdAtMs: 1, options: noOptions, owner: sender },
      ...{ epoch: 1, replicas: [receiver], revision: 1, trashed: null },
    };
    const send = async (name: string, from: string | null) => {
      const to = parseSnapshotName(name);
      const toIdentity = (await source.snapshots(id)).find((snapshot) => snapshot.name === name)?.identity ?? '';
      const transfer = { doc, to, toIdentity, from: from === null ? null : parseSnapshotName(from) };
      return await timed(() => sendSnapshot(parts, receiver, transfer, () => undefined, never));
    };
    const choose = async (on: boolean) => {
      isEncrypted = on;
      await ask(child, { ask: 'encrypt', on });
    };
    await source.create(id, options);
    const clear = async () => void (pools.clear === null ? await ask(child, { ask: 'destroy' }) : await pools.clear());
    const path = join(await source.mount(id), 'data');
    for (let index = 0; index <= increments; index += 1) {
      await writeRandom(path, index === 0 ? bytes : 1e6);
      await source.snapshot(id, parseSnapshotName(`s${index}`));
    }
    // Both pools of zfs have one name here: what is mounted of the one, the other would take for its own.
    await source.unmount(id);
    await pools.rest();
    const raw: number[] = [];
    const tls: number[] = [];
    const plain: number[] = [];
    const delays: number[] = [];
    const delay = monitorEventLoopDelay({ resolution: 1 });
    const turns = [
      async () => void raw.push(await timed(() => pools.raw('s0'))),
      async () => {
        await choose(true);
        await ask(child, { ask: 'delay' });
        delay.reset();
        delay.enable();
        tls.push(await send('s0', null));
        delay.disable();
        delays.push(delay.percentile(99) / 1e6, (await ask(child, { ask: 'delay' })) / 1e6);
        await clear();
      },
      async () => {
        await choose(false);
        plain.push(await send('s0', null));
        await clear();
      },
    ];
    // The first round warms the caches.
    for (let round = 0; round <= rounds; round += 1) {
      for (let turn = 0; turn < turns.length; turn += 1) await turns[(round + turn) % turns.length]?.();
      if (round === 0) for (const figures of [raw, tls, plain, delays]) figures.length = 0;
    }
    await choose(true);
    // A dataset of zfs-fuse can't take increments here: its daemon has the other pool's of the same name mounted.
    const isIncremental = pools.from.kind === 'btrfs';
    if (isIncremental) await send('s0', null);
    const small: number[] = [];
    for (let index = 1; isIncremental && index <= increments; index += 1) {
      await choose(index % 2 === 0);
      small.push(await send(`s${index}`, `s${index - 1}`));
    }
    client.close();
    const rate = (figures: readonly number[]) => `${Math.round(bytes / 1e3 / median(figures))} MB/s`;
    return [
      ratioRow('complete stream, encrypted', rate(tls), `pipe ${rate(raw)}`, medianRatio(raw, tls), { min: 0.8 }),
      ratioRow('complete stream, plain', rate(plain), `pipe ${rate(raw)}`, medianRatio(raw, plain), { min: 0.95 }),
      ...(isIncremental
        ? [
            figureRow('increment of 1 MB, encrypted', median(small.filter((_, index) => index % 2 === 1)), ms, null),
            figureRow('increment of 1 MB, plain', median(small.filter((_, index) => index % 2 === 0)), ms, null),
          ]
        : []),
      figureRow('delay of the event loops, p99, encrypted', Math.max(...delays), ms, { max: 10 }),
    ];
  } finally {
    child.kill('SIGKILL');
    await rm(folder, { recursive: true, force: true });
  }
}

async function writeRandom(path: string, bytes: number): Promise<void> {
  const file = await open(path, 'a');
  const block = 1e6;
  for (let written = 0; written < bytes; written += block) {
    const data = crypto.getRandomValues(new Uint8Array(65_536));
    for (let at = 0; at < block; at += data.length)
      await file.write(data.subarray(0, Math.min(data.length, block - at)));
  }
  await file.sync();
  await file.close();
}

async function btrfsPools(bytes: number): Promise<Pools> {
  const [one, two] = [await openBtrfsPool(), await openBtrfsPool()];
  for (const { storage } of [one, two]) await storage.makePool(Math.ceil((bytes * 5) / 1e6) * 1e6 + 512 * 1024 * 1024);
  await two.storage.list();
  const top = two.config.topMount;
  return {
    from: { kind: 'btrfs', config: one.config },
    to: { kind: 'btrfs', config: two.config },
    source: one.storage,
    // A copy is acknowledged when it is on the disk.
    async raw(name) {
      const snapshot = join(one.config.topMount, 'snapshots', id, name, name);
      await run('sh', ['-c', `btrfs -q send "$1" | btrfs -q receive -e "$2" && sync -f "$2"`, 'sh', snapshot, top]);
      await run('btrfs', ['subvolume', 'delete', '-c', join(top, name)]);
    },
    clear: null,
    rest: async () => undefined,
    async dispose() {
      await one.dispose();
      await two.dispose();
    },
  };
}

async function zfsPools(bytes: number): Promise<Pools> {
  const poolBytes = Math.ceil((bytes * 5) / 1e6) * 1e6 + 512 * 1024 * 1024;
  const [one, two] = [await startZfsFuse({ poolBytes }), await startZfsFuse({ poolBytes })];
  const path = `${two.config.prefix}/raw`;
  /** What the daemon mounts shows here too, and the other storage would take it for its own. */
  const forget = async ({ config }: typeof one) => {
    while (await run('umount', ['-l', join(config.daemonMountRoot, id)]).then(Boolean, () => false));
  };
  return {
    from: { kind: 'zfs', config: one.config },
    to: { kind: 'zfs', config: two.config },
    source: openStorage({ kind: 'zfs', config: one.config }),
    async raw(name) {
      const pipe = `"$1" send "$2" | "$3" receive -u "$4"`;
      const snapshot = `${one.config.prefix}/${id}@${name}`;
      await run('sh', ['-c', pipe, 'sh', one.config.tools.zfs, snapshot, two.config.tools.zfs, path]);
      await two.zfs('destroy', '-r', path);
    },
    async clear() {
      await two.zfs('destroy', '-r', `${two.config.prefix}/${id}`);
      await forget(two);
    },
    async rest() {
      await one.zfs('unmount', `${one.config.prefix}/${id}`);
      await forget(one);
    },
    async dispose() {
      await one.stop();
      await two.stop();
    },
  };
}

/** Answers a number. */
async function ask(child: ChildProcess, asked: Asked): Promise<number> {
  const over = new AbortController();
  child.once('exit', () => over.abort(new Error('the receiver has ended')));
  child.send(asked);
  const [answer] = await once(child, 'message', { signal: over.signal });
  child.removeAllListeners('exit');
  if (typeof answer === 'number') return answer;
  throw new Error(String(answer));
}

/** The other node, told what to do by its parent. */
function beReceiver(): void {
  let storage: Storage | null = null;
  let isEncrypted = true;
  const delay = monitorEventLoopDelay({ resolution: 1 });
  async function perform(asked: Asked): Promise<number> {
    if (asked.ask === 'encrypt') isEncrypted = asked.on;
    if (asked.ask === 'destroy') await storage?.destroy(id);
    if (asked.ask === 'delay') {
      const found = delay.percentile(99);
      delay.reset();
      delay.enable();
      return found;
    }
    if (asked.ask !== 'start') return 0;
    const opened = openStorage(asked.pool);
    storage = opened;
    const partials = createPartials(join(asked.folder, 'partials'));
    const door = createDoor({ address: '127.0.0.1', port: 0 });
    const copies = plainCopies(opened);
    const parts = {
      copies,
      storage: opened,
      partials,
      door,
      carriers: createCarriers({ script: carrierScript }),
      isEncrypted: () => isEncrypted,
      folder: asked.folder,
      log,
    };
    const server = await startPeerServer({
      ...{ identity: asked.identity, address: '127.0.0.1', port: 0, handler: Router(), join: async () => ({}), log },
      isMember: () => true,
      onData: (socket, peer) => void receiveSnapshot(parts, socket, peer),
    });
    return server.port;
  }
  process.on('message', (asked) => {
    perform(asked as Asked).then(
      (answer) => process.send?.(answer),
      (error: unknown) => process.send?.(String(error)),
    );
  });
}

if (process.argv.includes('--receiver')) beReceiver();
else await runProgram(() => main(process.argv.slice(2)));
