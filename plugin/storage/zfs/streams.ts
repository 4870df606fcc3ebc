import { FlockError, messageOf } from '../../../controller/model/errors.ts';
import type { DatasetId } from '../../../controller/model/names.ts';
import { CommandError } from '../../exec.ts';
import type { ReceiveRequest, ReplicaOptions, ResumedSend, SendRequest, Snapshot } from '../storage.ts';
import {
  datasetPath,
  defaultProperties,
  mountProperties,
  probeName,
  quotaValue,
  receiveArguments,
  replicaProperties,
  resumedSendArguments,
  sendArguments,
  snapshotPath,
} from './arguments.ts';
import { reasonOf, toFlockError } from './errors.ts';
import type { Mounts } from './mounts.ts';
import { exactNumber, type SnapshotFacts, toStamp } from './parse.ts';
import { encodeStamp } from './property-text.ts';
import type { Resuming } from './resuming.ts';
import type { Runner } from './runner.ts';
import { type Snapshots, toContract } from './snapshots.ts';

export type Streams = {
  send(request: SendRequest | ResumedSend, sink: number, signal: AbortSignal): Promise<void>;
  receive(request: ReceiveRequest, source: number, signal: AbortSignal): Promise<Snapshot>;
  /** The live content may change now: to be called before a dataset is mounted. */
  forget(id: DatasetId): void;
};

/** BEGIN and END: what zfs of any version sends where nothing changed. The next larger stream has 312 bytes more. */
const emptyStreamBytes = 624;

export function createStreams(runner: Runner, mounts: Mounts, snapshots: Snapshots, resuming: Resuming): Streams {
  const { config, commands } = runner;
  const pathOf = (id: DatasetId) => datasetPath(config, id);
  /** Datasets whose live content is that of their newest snapshot, because this process received it and has not mounted it since. */
  const unchanged = new Set<DatasetId>();

  async function stream(
    args: readonly string[],
    stdio: { readonly stdin?: number; readonly stdout?: number },
    signal: AbortSignal,
  ): Promise<void> {
    try {
      await commands.stream(config.tools.zfs, args, stdio, signal);
    } catch (error) {
      if (signal.aborted) throw cancelled(args, error);
      throw toFlockError(error, config);
    }
  }

  return {
    async send(request, sink, signal) {
      if ('token' in request) {
        await resuming.requireTokenOf(request);
        await stream(resumedSendArguments(request.token), { stdout: sink }, signal);
        return;
      }
      const { id, to, from } = request;
      const target = await snapshots.find(id, to);
      if (from !== null) await snapshots.find(id, from);
      if (signal.aborted) throw cancelled(['send', target.path], signal.reason);
      await stream(sendArguments(await runner.support(), target.path, from), { stdout: sink }, signal);
    },

    async receive(request, source, signal) {
      const { id, to, from } = request;
      const { isResumable, resumes } = await resuming.prepare(request);
      const before = from === null ? null : await requireBase(id, from, resumes);
      if (before === null && !resumes) await requireAbsent(id);
      if (signal.aborted) throw cancelled(['receive', pathOf(id)], signal.reason);
      unchanged.delete(id);
      try {
        await stream(receiveArguments(pathOf(id), isResumable), { stdin: source }, signal);
        await requireNewest(request);
        if (from === null) await setOptions(id, request.options ?? null);
      } catch (error) {
        if (!isResumable || (await resuming.tokenOf(id)) === null) await undo(id, before);
        throw error;
      }
      await adopt(request);
      unchanged.add(id);
      return toContract(await snapshots.find(id, to));
    },

    forget(id) {
      unchanged.delete(id);
    },
  };

  async function requireAbsent(id: DatasetId): Promise<void> {
    const path = pathOf(id);
    if (!(await runner.isThere(path))) return;
    const stamp = toStamp((await runner.get(['flock:stamp'], [path])).get(path)?.get('flock:stamp'));
    if (stamp !== null) {
      throw new FlockError('storage-failed', `${path} is there already: a complete stream makes a new dataset`, { id });
    }
    // Everything of ours has a stamp from the start, except a receive that a crash cut off before its last step.
    await mounts.requireUnmounted(id);
    await runner.zfs(['destroy', '-r', '--', path]);
  }

  /** The snapshots here, of which the newest is the one wanted, with the live content like it. */
  async function requireBase(id: DatasetId, from: string, resumes: boolean): Promise<readonly SnapshotFacts[]> {
    const all = await snapshots.all(pathOf(id));
    const newest = all.findLast((snapshot) => !snapshot.artifact);
    if (newest?.name !== from) {
      const found = newest === undefined ? 'it has no snapshot' : `its newest snapshot is ${newest.name}`;
      throw new FlockError('no-common-snapshot', `${id} can't take an increment from ${from}: ${found}`, { id, from });
    }
    await mounts.requireUnmounted(id);
    // What has arrived was looked at before its beginning, and goes on where it is.
    if (unchanged.has(id) || resumes) return all;
    const youngest = all.at(-1) ?? newest;
    if (!(await isUnchanged(id, youngest))) {
      throw new FlockError(
        'no-common-snapshot',
        `${id} was written to after its newest snapshot ${from}; keep that with a rollback to ${from} first`,
        { id, from, reason: 'modified' },
      );
    }
    // Mounting alone makes zfs take a dataset for modified; there is nothing to lose by this.
    await rollBack(youngest.path);
    return all;
  }

  /** Whether a stream from the snapshot to now is empty: neither backend has a diff that works without a mount. */
  async function isUnchanged(id: DatasetId, newest: SnapshotFacts): Promise<boolean> {
    const probe = snapshotPath(config, id, probeName(newest.identity));
    await destroyProbe(probe);
    await runner.zfs(['snapshot', '--', probe]);
    try {
      const args = ['send', '-i', `@${newest.name}`, '--', probe];
      const text = await commands.run(config.tools.zfs, args, { stdoutBytesMax: 2 * emptyStreamBytes });
      return text.length <= emptyStreamBytes;
    } catch (error) {
      // More output than allowed ends the command, without a word from it or with one about the pipe that was closed.
      if (error instanceof CommandError && /^$|Broken pipe/.test(error.stderr) && !error.timedOut) return false;
      throw toFlockError(error, config);
    } finally {
      await destroyProbe(probe);
    }
  }

  async function destroyProbe(probe: string): Promise<void> {
    try {
      await runner.zfs(['destroy', '--', probe]);
    } catch (error) {
      if (reasonOf(error) !== 'missing') throw error;
    }
  }

  async function requireNewest({ id, to }: ReceiveRequest): Promise<void> {
    const newest = (await snapshots.all(pathOf(id))).at(-1);
    if (newest?.name === to) return;
    throw new FlockError('stream-invalid', `the stream for ${id} ended with ${newest?.name ?? 'nothing'}, not ${to}`);
  }

  /** Back to what was there before: nothing, or the same snapshots and the live content of the newest. */
  async function undo(id: DatasetId, before: readonly SnapshotFacts[] | null): Promise<void> {
    const path = pathOf(id);
    if (!(await runner.isThere(path))) return;
    if (before === null) {
      await runner.zfs(['destroy', '-r', '--', path]);
      return;
    }
    const known = new Set(before.map(({ identity }) => identity));
    const received = (await snapshots.all(path)).filter(({ identity }) => !known.has(identity));
    for (const snapshot of received) await runner.zfs(['destroy', '--', snapshot.path]);
    const youngest = before.at(-1);
    if (received.length > 0 && youngest !== undefined) await rollBack(youngest.path);
  }

  /** zfs-fuse then has the kernel drop its caches, which a container may not; of what is not mounted there is nothing in them. */
  async function rollBack(snapshot: string): Promise<void> {
    try {
      await runner.zfs(['rollback', '--', snapshot]);
    } catch (error) {
      if (reasonOf(error) !== 'caches-kept') throw error;
    }
  }

  /** A stream carries no properties; what somebody has changed since the first one of a dataset stays. */
  async function setOptions(id: DatasetId, options: ReplicaOptions | null): Promise<void> {
    const path = pathOf(id);
    const support = await runner.support();
    if (options === null) return await runner.set(path, defaultProperties(support));
    await runner.set(path, replicaProperties(support, options));
    if (options.quotaBytes === null) return;
    const found = (await runner.get(['referenced'], [path])).get(path) ?? new Map();
    if (Number(exactNumber(path, found, 'referenced')) <= options.quotaBytes)
      await runner.set(path, { refquota: quotaValue(options.quotaBytes) });
  }

  /** The stamp comes last: a complete stream's dataset without one is not finished. */
  async function adopt({ id, stamp }: ReceiveRequest): Promise<void> {
    const wanted = { ...mountProperties(config, id), readonly: 'on' };
    const found = (await runner.get(Object.keys(wanted), [pathOf(id)])).get(pathOf(id));
    const wrong = Object.entries(wanted).filter(([name, value]) => found?.get(name)?.value !== value);
    await runner.set(pathOf(id), Object.fromEntries(wrong));
    await runner.set(pathOf(id), { 'flock:stamp': encodeStamp(stamp) });
  }
}

function cancelled(args: readonly string[], cause: unknown): FlockError {
  return new FlockError('storage-failed', `zfs ${args.join(' ')} was cancelled: ${messageOf(cause)}`, {}, { cause });
}
