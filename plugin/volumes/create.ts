import { FlockError, hasCode } from '../../controller/model/errors.ts';
import { datasetIdFor, parseVolumeName, quote, type VolumeName } from '../../controller/model/names.ts';
import { noOptions, parseOptions, type VolumeOptions } from '../../controller/model/options.ts';
import { encodeStamp, type VolumeRecord } from '../../controller/model/volume.ts';
import { CommandError } from '../exec.ts';
import { type Storage, stampBytesMax } from '../storage/storage.ts';
import { type Context, datasetOptions, readyVolume, refuseUnreadable } from './context.ts';
import { startDestroying } from './destroy.ts';

/**
 * Creates a volume, or finds that it is there already with nothing else asked for (Swarm creates on every node, Docker repeats
 * itself). Never touches the data of an existing volume. Answers its record; null where it belongs to another node.
 */
export async function createVolume(
  context: Context,
  rawName: string,
  rawOptions: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<VolumeRecord | null> {
  const name = parseVolumeName(rawName);
  const asked = parseOptions(rawOptions);
  const { from } = asked;
  const found = await context.locks.with(name, 'create', signal, async () => {
    const known = await findExisting(context, name, asked);
    if (known !== undefined) return known;
    await checkBackend(context.storage, asked);
    return from === null ? await createOrJoin(context, name, asked, null) : undefined;
  });
  if (from === null || found !== undefined) return found ?? null;
  if (from.name === name)
    throw new FlockError('invalid-option', `option "from": volume ${quote(name)} can't be made from itself`);
  return await withBoth(context, [name, from.name], `clone of ${from.name} to ${name}`, signal, async () => {
    // Its own lock was free for a moment.
    const known = await findExisting(context, name, asked);
    if (known !== undefined) return known;
    const source = readyVolume(context, from.name);
    return await createOrJoin(context, name, inherit(asked, source.options), {
      id: source.id,
      snapshot: from.snapshot,
    });
  });
}

/** What the name stands for already: a volume here, null for one of another node, undefined for none. */
async function findExisting(
  context: Context,
  name: VolumeName,
  asked: VolumeOptions,
): Promise<VolumeRecord | null | undefined> {
  const existing = context.state.byName(name);
  if (existing?.phase.kind === 'creating') return await finishCreating(context, existing);
  if (existing !== undefined) {
    refuseOtherOptions(existing, asked);
    return existing;
  }
  refuseUnreadable(context, name);
  const other = context.ownership.elsewhere(name);
  if (other === null) return undefined;
  refuseOtherOptions(other, asked);
  return null;
}

/** Everybody takes two locks in the same order, so nobody can wait for one while holding what its holder waits for. */
async function withBoth<T>(
  context: Context,
  names: readonly [VolumeName, VolumeName],
  what: string,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T> {
  const [first, second] = names[0] < names[1] ? names : [names[1], names[0]];
  return await context.locks.with(first, what, signal, () => context.locks.with(second, what, signal, work));
}

type Source = Extract<VolumeRecord['phase'], { kind: 'creating' }>['source'];

/** Another node may be making the same volume in this moment; then there is one, and it is not ours. */
async function createOrJoin(
  context: Context,
  name: VolumeName,
  options: VolumeOptions,
  source: Source,
): Promise<VolumeRecord | null> {
  try {
    return await createNew(context, name, options, source);
  } catch (error) {
    if (!hasCode(error, 'volume-exists')) throw error;
    const other = await until(context.clock, seenElsewhereMs, () => context.ownership.elsewhere(name));
    if (other === null) throw error;
    refuseOtherOptions(other, options);
    return null;
  }
}

/** How long what another node has written to the store may take to be seen here. */
const seenElsewhereMs = 2_000;

async function until<T>(clock: Context['clock'], limitMs: number, look: () => T | null): Promise<T | null> {
  for (let waitedMs = 0; ; waitedMs += 50) {
    const found = look();
    if (found !== null || waitedMs >= limitMs) return found;
    await clock.sleep(50);
  }
}

async function createNew(
  context: Context,
  name: VolumeName,
  options: VolumeOptions,
  source: Source,
): Promise<VolumeRecord> {
  const id = datasetIdFor(name, context.clock.randomHex(4));
  const record: VolumeRecord = {
    id,
    name,
    createdAtMs: context.clock.nowMs(),
    options,
    epoch: 0,
    phase: { kind: 'creating', source },
  };
  encodeStamp(record, stampBytesMax);
  context.state.commit({ put: [record] });
  try {
    return await finishCreating(context, record);
  } catch (error) {
    const left = context.state.byId(record.id);
    if (left?.phase.kind === 'creating') await startDestroying(context, left);
    throw explainRefusal(error, options);
  }
}

const wordsMax = 300;

/** A property that the backend does not take: which one, and what its command said, without the command. */
function explainRefusal(error: unknown, { properties }: VolumeOptions): unknown {
  if (!hasCode(error, 'invalid-option') || !(error.cause instanceof CommandError)) return error;
  // Further lines are zfs's whole manual. The name of the dataset says nothing to its user.
  const [line = ''] = error.cause.stderr.trim().split('\n');
  const words = line.replace(/^cannot (create|clone) '[^']*': /, '').slice(0, wordsMax);
  const given = Object.entries(properties);
  const named = given.filter(([key]) => error.message.includes(`'${key.slice(key.indexOf('.') + 1)}'`));
  const suspects = (named.length > 0 ? named : given).map(([key, value]) => `${key}=${value}`).join(', ');
  return new FlockError('invalid-option', `${suspects || 'an option'}: ${words}`, error.facts, { cause: error.cause });
}

/** The second half of a creation; repeated after a crash. */
export async function finishCreating(context: Context, record: VolumeRecord): Promise<VolumeRecord> {
  if (record.phase.kind !== 'creating') return record;
  const claimed = record.epoch > 0 ? record : await claim(context, record);
  if (claimed !== record) context.state.commit({ put: [claimed] });
  const options = datasetOptions(claimed, context.storage.kind);
  const { source } = record.phase;
  if (source === null) await context.storage.create(record.id, options);
  else await context.storage.clone(source, record.id, options);
  const ready: VolumeRecord = { ...claimed, phase: { kind: 'ready' } };
  context.state.commit({ put: [ready] });
  context.ownership.touched(record.id);
  context.usage.refreshSoon(record.id);
  context.log.info(
    { event: 'volume.created', volume: record.name, dataset: record.id, from: source },
    'volume created',
  );
  return ready;
}

/** Where another node has made a volume of this name meanwhile there is nothing here to keep, and the name must not stay taken. */
async function claim(context: Context, record: VolumeRecord): Promise<VolumeRecord> {
  try {
    return await context.ownership.claim(record);
  } catch (error) {
    if (hasCode(error, 'volume-exists')) await startDestroying(context, record);
    throw error;
  }
}

/** A clone is like its source where nothing else was asked for; its root directory already has owner and mode. */
function inherit(asked: VolumeOptions, source: VolumeOptions): VolumeOptions {
  return {
    ...asked,
    sizeBytes: asked.sizeBytes ?? source.sizeBytes,
    compression: asked.compression ?? source.compression,
    recordSizeBytes: asked.recordSizeBytes ?? source.recordSizeBytes,
    properties: { ...source.properties, ...asked.properties },
    replicas: asked.replicas ?? source.replicas,
    remoteReplicas: asked.remoteReplicas ?? source.remoteReplicas,
    intervalMs: asked.intervalMs ?? source.intervalMs,
    retain: asked.retain ?? source.retain,
    nodes: asked.nodes ?? source.nodes,
    locality: asked.locality ?? source.locality,
    failover: asked.failover ?? source.failover,
    maxLossMs: asked.maxLossMs ?? source.maxLossMs,
  };
}

function refuseOtherOptions(existing: Pick<VolumeRecord, 'name' | 'options'>, asked: VolumeOptions): void {
  const keys = Object.keys(noOptions) as (keyof VolumeOptions)[];
  const differing = keys.filter((key) => {
    const wanted = JSON.stringify(asked[key]);
    return wanted !== JSON.stringify(noOptions[key]) && wanted !== JSON.stringify(existing.options[key]);
  });
  if (differing.length === 0) return;
  throw new FlockError(
    'volume-exists',
    `volume ${quote(existing.name)} exists already with another ${differing.join(', ')}: use it as it is, change it with "flockctl volume resize" or "flockctl volume set", or choose another name`,
    { differing },
  );
}

/** Refuses what this host's backend can't do before anything is made. */
export async function checkBackend(storage: Storage, options: VolumeOptions): Promise<void> {
  for (const key of Object.keys(options.properties)) {
    if (!key.startsWith(`${storage.kind}.`)) throw unsupported(key, `this host keeps its volumes on ${storage.kind}`);
  }
  if (options.compression === null && options.recordSizeBytes === null) return;
  const capabilities = await storage.capabilities();
  if (options.compression !== null && !['on', 'off', ...capabilities.compression].includes(options.compression)) {
    throw unsupported(
      'compression',
      `${quote(options.compression)} is not one of on, off, ${capabilities.compression.join(', ')}`,
    );
  }
  if (options.recordSizeBytes !== null) {
    if (capabilities.recordSizeBytesMax === null)
      throw unsupported('recordsize', `this host keeps its volumes on ${storage.kind}, which has no record size`);
    if (options.recordSizeBytes > capabilities.recordSizeBytesMax)
      throw unsupported('recordsize', `at most ${capabilities.recordSizeBytesMax} bytes here`);
  }
}

function unsupported(option: string, reason: string): FlockError {
  return new FlockError('invalid-option', `option ${quote(option)}: ${reason}`, { option });
}
