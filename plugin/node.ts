import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { FlockError, messageOf } from '../controller/model/errors.ts';
import type { Settings, SettingsRequest } from '../controller/model/settings.ts';
import { ownsName } from '../controller/model/volume.ts';
import { bootId, bootMs, hostClock } from './boot-clock.ts';
import { createContainers } from './containers.ts';
import { createDockerView } from './docker-view.ts';
import { createCommands } from './exec.ts';
import { watchFolder } from './folder-watch.ts';
import { findHolders } from './holders.ts';
import { createLocks } from './locks.ts';
import type { Member } from './member.ts';
import { mountedAt, readMountTable } from './mount-table.ts';
import { ownFoldersOf, type Paths } from './paths.ts';
import { createStorage, ensurePool, loadSettings, saveSettings } from './pool.ts';
import { openState, type State } from './state.ts';
import type { PoolMaker } from './storage/storage.ts';
import type { Context } from './volumes/context.ts';
import { limitVolumes } from './volumes/limit.ts';
import { sweepMounts } from './volumes/mounts.ts';
import { absentOwnership, type Ownership, soleOwnership } from './volumes/ownership.ts';
import { recover } from './volumes/recover.ts';
import { sweepTrash } from './volumes/trash.ts';
import { createUsage } from './volumes/usage.ts';

/**
 * The plugin's life on this node. The sockets answer before anything here has happened (Docker gives a plugin about nine seconds),
 * so everything that can fail or wait happens in `run`, and whoever needs it waits for it with a limit.
 */
export type Node = {
  /** Open from shortly after start; null before, and while the file can't be opened. Needs no pool. */
  state(): State | null;
  /** For answers that need no pool; null before start and while the settings can't be read. */
  context(): Context | null;
  /** For work on records: waits until the start has been tried once, at most until the signal fires. Throws `not-ready`. */
  ready(signal: AbortSignal): Promise<Context>;
  /** As ready, for work on the pool: throws why the start failed as long as it does. */
  usable(signal: AbortSignal): Promise<Context>;
  /** Why the start has not succeeded yet, or null. */
  problem(): string | null;
  changeSettings(change: SettingsRequest): Promise<Settings>;
  /** Starts, and sweeps until the signal fires. Never throws. */
  run(signal: AbortSignal): Promise<void>;
};

const changeable: ReadonlySet<string> = new Set(['trashMs', 'stashMs', 'transferBytesPerSecond', 'encryption']);
const predecessorWaitMs = 20_000;
const retryMs = 2_000;
const sweepMs = 60_000;
/** For an answer to go out before the process ends. */
const beginAnewMs = 500;
const saveMsMax = 10_000;
const commandEnvironment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' };

export function createNode(
  paths: Paths,
  firstSettings: string,
  member: Pick<Member, 'load' | 'run' | 'agent' | 'identity'>,
  log: Logger,
): Node {
  let state: State | null = null;
  let settings: Settings | null = null;
  let context: (Context & { readonly storage: PoolMaker }) | null = null;
  let lastError: unknown = null;
  let tried = false;
  let started = false;
  const waiting = new Set<() => void>();
  const saves = createLocks();
  /** Ends the pause before the next attempt at starting. */
  let hurry: () => void = () => undefined;

  const dockerView = createDockerView(dirname(paths.mountRoot));
  let isEnding = false;

  /** Docker starts a plugin again that ends by itself. */
  function beginAnew(reason: string): void {
    if (isEnding) return;
    isEnding = true;
    log.error({ event: 'plugin.cut-off', reason }, 'the plugin ends, for Docker to start it anew');
    setTimeout(() => process.exit(1), beginAnewMs);
  }

  /** Each step is repeated from where it failed. */
  async function start(signal: AbortSignal): Promise<void> {
    await mkdir(paths.folder, { recursive: true, mode: 0o700 });
    state ??= await openStateFile();
    settings ??= await loadSettings(paths, firstSettings);
    await member.load();
    context ??= await createContext(state, settings);
    await ensurePool(context.storage, state, settings);
    await recover(context, signal);
    await context.usage.refresh();
  }

  async function openStateFile(): Promise<State> {
    const opened = await openState(paths.state, predecessorWaitMs, { id: bootId(), nowMs: bootMs });
    for (const { id, name, reason } of opened.unreadable())
      log.error({ event: 'state.unreadable', volume: name, dataset: id, reason }, 'a record is set aside as it is');
    return opened;
  }

  async function createContext(openedState: State, loaded: Settings) {
    const storage = await createStorage(paths, loaded, createCommands(commandEnvironment));
    const clock = { ...hostClock, sleep: (ms: number) => sleep(ms) };
    const containers = createContainers(paths.engineSocket);
    const ownFolders = ownFoldersOf(paths);
    return {
      state: openedState,
      storage,
      locks: createLocks(),
      usage: createUsage(storage, clock),
      get ownership() {
        return ownershipNow();
      },
      settings: () => settings ?? loaded,
      clock,
      findHolders: (ids: Parameters<Context['findHolders']>[0]) => findHolders(storage, ids, ownFolders),
      dockerShows: dockerView.shows,
      beginAnew,
      describeHolder: (holder: Parameters<Context['describeHolder']>[0]) =>
        containers.describe(holder.containerId, holder.pid),
      log,
    };
  }

  async function sweep(current: Context, signal: AbortSignal): Promise<void> {
    await recover(current, signal);
    const table = await readMountTable();
    await sweepMounts(current, (id) => mountedAt(table, current.storage.mountPath(id)) !== null, signal);
    await sweepTrash(current, signal);
    await limitVolumes(current, signal);
  }

  /** A member whose part in the cluster does not run yet must not act as if everything here were its own. */
  function ownershipNow(): Ownership {
    const agent = member.agent();
    if (agent !== null) return agent.ownership;
    if (member.identity() === null) return soleOwnership;
    return absentOwnership(
      () => state?.docs() ?? [],
      (id) => {
        const record = state?.byId(id);
        return record !== undefined && ownsName(record);
      },
    );
  }

  function wake(): void {
    for (const resolve of waiting) resolve();
    waiting.clear();
  }

  async function attempt(what: string, work: () => Promise<void>): Promise<boolean> {
    try {
      await work();
      if (lastError !== null) log.info({ event: 'node.recovered', what }, 'the node works again');
      lastError = null;
      return true;
    } catch (error) {
      // One line per change, not one per try.
      if (messageOf(error) !== messageOf(lastError))
        log.error({ event: 'node.failed', what, error: messageOf(error) }, 'will be tried again');
      lastError = error;
      return false;
    }
  }

  /** Until the attempt at starting that runs now, or else the next one, is over. */
  function attempted(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      waiting.add(resolve);
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
  }

  async function ready(signal: AbortSignal): Promise<Context> {
    if (!tried) await attempted(signal);
    else if (context === null) await tryNow(signal);
    if (context === null) throw notStarted();
    return context;
  }

  /** Whoever has just mended the pool or a file should not have to know when flock looks at it again. */
  async function tryNow(signal: AbortSignal): Promise<void> {
    const next = attempted(signal);
    hurry();
    await next;
  }

  function notStarted(): FlockError {
    if (lastError instanceof FlockError) return lastError;
    return new FlockError(
      'not-ready',
      `flock can't start on this node yet: ${lastError === null ? 'it has just been started' : messageOf(lastError)}`,
      {},
      { cause: lastError },
    );
  }

  return {
    state: () => state,
    context: () => context,
    ready,
    async usable(signal) {
      const usable = await ready(signal);
      if (!started) await tryNow(signal);
      if (!started) throw notStarted();
      return usable;
    },
    problem: () => (started || lastError === null ? null : messageOf(lastError)),
    async changeSettings(change) {
      if (settings === null)
        throw new FlockError('not-ready', `the settings can't be changed yet: ${messageOf(lastError)}`);
      const fixed = Object.entries(change).find(([key, value]) => !changeable.has(key) && value !== undefined);
      if (fixed !== undefined) {
        throw new FlockError(
          'not-supported',
          `setting ${fixed[0]}: only "trash", "stash", "transfer-limit" and "encryption" can be changed while the plugin runs. To use another pool, disable the plugin, edit ${paths.settings} and enable it again`,
        );
      }
      const loaded = settings;
      return await saves.with('settings', 'a change', AbortSignal.timeout(saveMsMax), async () => {
        const before = settings ?? loaded;
        const { trashMs, stashMs, transferBytesPerSecond, encryption } = change;
        const changed: Settings = {
          ...before,
          trashMs: trashMs ?? before.trashMs,
          stashMs: stashMs ?? before.stashMs,
          transferBytesPerSecond:
            transferBytesPerSecond === undefined ? before.transferBytesPerSecond : transferBytesPerSecond,
          encryption: encryption ?? before.encryption,
        };
        // What could not be written would be forgotten at the next start, so it must not hold until then either.
        await saveSettings(paths, changed);
        settings = changed;
        return changed;
      });
    },
    async run(signal) {
      const watching = watchFolder(dockerView, () => beginAnew('Docker has taken the shared folder away'), signal);
      while (!signal.aborted) {
        const done = await attempt('start', () => start(signal));
        started = done;
        tried = true;
        wake();
        if (done) break;
        const pause = new AbortController();
        hurry = () => pause.abort();
        await sleep(retryMs, undefined, { signal: AbortSignal.any([signal, pause.signal]) }).catch(() => undefined);
      }
      const membership = context === null ? null : member.run(context, signal);
      while (!signal.aborted) {
        await sleep(sweepMs, undefined, { signal }).catch(() => undefined);
        const current = context;
        if (current !== null && !signal.aborted) await attempt('sweep', () => sweep(current, signal));
      }
      await Promise.all([membership, watching]);
      context?.usage.stop();
      await context?.storage
        .close()
        .catch((error: unknown) =>
          log.warn({ event: 'pool.close-failed', error: messageOf(error) }, 'closing the pool'),
        );
      state?.close();
    },
  };
}
