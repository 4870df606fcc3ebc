import type { DatasetId, NodeName } from '../../controller/model/names.ts';
import type { Operation } from '../../controller/store/store.ts';
import type { Deadlines } from '../../plugin/deadlines.ts';
import { createMemoryDisk, type MemoryDisk } from '../../plugin/storage/memory-disk.ts';
import type { Container } from './containers.ts';
import { createStateFile, type StateFile } from './memory-state.ts';
import { type Process, startProcess } from './process.ts';
import type { Timer } from './scheduler.ts';
import type { World } from './world.ts';

/** A machine: what outlives the plugin's process (disk, state file, clock, users' processes, watchdog) and what outlives the machine (disk, state file). */
export type Host = {
  readonly name: NodeName;
  readonly disk: MemoryDisk;
  readonly file: StateFile;
  readonly containers: Set<Container>;
  /** Names of volumes by the mounts of containers that Docker is about to start. */
  readonly starting: Map<string, string>;
  /** Names of volumes that Docker is removing: no container with one is started meanwhile. */
  readonly removing: Set<string>;
  readonly proofs: Proofs;
  /** Faults that wait for the next mount. */
  readonly atMount: Set<() => void>;
  /** Faults that wait for what its plugin asks of the store; one that answers true has struck. */
  readonly atTransaction: Set<(operations: readonly Operation[]) => boolean>;
  isUp(): boolean;
  /** Another one after each power cut. */
  bootId(): number;
  process(): Process | null;
  deadlines(): Deadlines;
  publish(deadlines: Deadlines): void;
  /** Of its own clock, which runs a little fast or slow. */
  bootMs(): number;
  wallMs(): number;
  stepWallClock(ms: number): void;
  /** The time by which it judges how old a use is: `bootMs`, but for what `ageUses` makes pass. */
  useMs(): number;
  /** What it believes of mounts is so much older, without a wait. */
  ageUses(ms: number): void;
  /** After so much of its own time. */
  after(ms: number, run: () => void): Timer;
  /** A program that the plugin has started: takes a moment, and goes on without the plugin, not without the machine. */
  command<T>(work: () => Promise<T>): Promise<T>;
  startPlugin(): void;
  killPlugin(): void;
  powerOff(): void;
  powerOn(): void;
  /** It burns down, with its disk. */
  lose(): void;
  isLost(): boolean;
};

/** What the checks know of its proofs, in virtual time. */
export type Proofs = {
  storeAtMs: number;
  /** When each node was asked that has promised not to take the volume. */
  readonly promises: Map<DatasetId, Map<NodeName, number>>;
};

/** plugin/watchdog.ts */
const watchdog = { tickMs: 100, marginMs: 200, againMs: 500 };
const wallStartMs = 1_800_000_000_000;

export function createHost(world: () => World, name: NodeName, rate: number): Host {
  const disk = createMemoryDisk();
  disk.sizeBytes = 1024 ** 3;
  const file = createStateFile();
  const containers = new Set<Container>();
  const proofs: Proofs = { storeAtMs: Number.NEGATIVE_INFINITY, promises: new Map() };
  let boots = 0;
  let isUp = false;
  let isLost = false;
  let bootedAtMs = 0;
  let bootOffsetMs = 0;
  let wallOffsetMs = 0;
  let usesAgedMs = 0;
  let deadlines: Deadlines = new Map();
  let watch: Timer | null = null;
  let process: Process | null = null;

  const bootMs = () => bootOffsetMs + (world().scheduler.nowMs() - bootedAtMs) * rate;

  const host: Host = {
    name,
    disk,
    file,
    containers,
    starting: new Map(),
    removing: new Set(),
    atMount: new Set(),
    atTransaction: new Set(),
    proofs,
    isUp: () => isUp,
    bootId: () => boots,
    process: () => process,
    deadlines: () => deadlines,
    publish(next) {
      deadlines = next;
      guard();
    },
    bootMs,
    wallMs: () => Math.floor(wallStartMs + wallOffsetMs + world().scheduler.nowMs() * rate),
    stepWallClock(ms) {
      wallOffsetMs += ms;
    },
    useMs: () => bootMs() + usesAgedMs,
    ageUses(ms) {
      usesAgedMs += ms;
    },
    after: (ms, run) => world().scheduler.after(ms / rate, run),
    command(work) {
      const { scheduler, random } = world();
      const boot = boots;
      return new Promise((resolve, reject) => {
        scheduler.after(commandMs(random.next()), () => {
          if (boot !== boots) return;
          work().then(
            (value) => boot === boots && resolve(value),
            (error: unknown) => boot === boots && reject(error),
          );
        });
      });
    },
    startPlugin() {
      if (!isUp || process !== null) return;
      world().trace(() => `${name}: plugin starts`);
      process = startProcess(world(), host);
    },
    killPlugin() {
      if (process === null) return;
      world().trace(() => `${name}: plugin killed`);
      process.gate.kill();
      process = null;
      file.isOpen = false;
    },
    powerOff() {
      if (!isUp) return;
      world().trace(() => `${name}: power off`);
      host.killPlugin();
      isUp = false;
      boots += 1;
      for (const container of containers) container.end();
      containers.clear();
      host.starting.clear();
      host.removing.clear();
      disk.mounted.clear();
      deadlines = new Map();
      watch?.cancel();
    },
    powerOn() {
      if (isUp || isLost) return;
      world().trace(() => `${name}: power on`);
      isUp = true;
      boots += 1;
      bootedAtMs = world().scheduler.nowMs();
      // The first boots of the hosts lie far apart.
      bootOffsetMs = boots === 1 ? world().random.between(0, 1e9) : world().random.between(3_000, 30_000);
      host.startPlugin();
    },
    lose() {
      host.powerOff();
      isLost = true;
      disk.datasets.clear();
      for (const part of [file.records, file.uses, file.docs, file.facts]) part.clear();
    },
    isLost: () => isLost,
  };

  /** The watchdog looks all the time; only the looks that find something are simulated. */
  function guard(): void {
    watch?.cancel();
    if (world().without.watchdog) return;
    const next = Math.min(...[...deadlines.values()].filter(Number.isFinite));
    if (!Number.isFinite(next)) return;
    const waitMs = Math.max(next + watchdog.marginMs - bootMs(), 0) + world().random.between(0, watchdog.tickMs);
    watch = host.after(waitMs, bark);
  }

  function bark(): void {
    const now = bootMs();
    const overdue = [...deadlines].flatMap(([id, deadlineMs]) =>
      Number.isFinite(deadlineMs) && deadlineMs + watchdog.marginMs < now ? [id] : [],
    );
    if (overdue.length > 0) void host.command(async () => freeze(overdue));
    const later = [...deadlines.values()].filter((ms) => Number.isFinite(ms) && ms + watchdog.marginMs >= now);
    const waitMs = Math.min(...later.map((ms) => ms + watchdog.marginMs - now + 1), watchdog.againMs);
    watch = host.after(Math.max(waitMs, 1) + world().random.between(0, watchdog.tickMs), bark);
  }

  function freeze(ids: readonly DatasetId[]): void {
    for (const container of containers) if (ids.includes(container.volume)) container.freeze('watchdog');
  }

  return host;
}

/** Mostly a few milliseconds, now and then a busy disk. */
function commandMs(chance: number): number {
  return chance < 0.95 ? 1 + chance * 20 : (chance - 0.95) * 4_000;
}
