import { type NodeName, parseNodeName } from '../../../controller/model/names.ts';
import type { Operation } from '../../../controller/store/store.ts';
import { createFakeEngine, type FakeEngine, type FakeRow } from '../../support/fake-docker.ts';
import type { Gate } from '../gate.ts';
import { createPlugin, type Plugin } from './plugin.ts';
import { type Controller, startController } from './process.ts';
import type { World } from './world.ts';

/** A machine: Docker, and a plugin and a proxy of few words; its controller's process is the real one. */
export type Host = {
  readonly name: NodeName;
  readonly engine: FakeEngine;
  readonly plugin: Plugin;
  isUp(): boolean;
  /** Docker is coming up. */
  isBooting(): boolean;
  isCut(): boolean;
  /** Whether what it publishes and promises counts: it is up, and the store can be reached. */
  isWell(): boolean;
  controller(): Controller | null;
  /** Containers that take no connections here, by name. */
  readonly mute: Set<string>;
  /** When each container was started (virtual milliseconds), by id. */
  readonly startedMs: Map<string, number>;
  bootMs(): number;
  wallMs(): number;
  /** Work of this machine outside any process of flock: it ends with the machine. */
  later<T>(ms: number, work: () => T | Promise<T>): Promise<T>;
  /** As Docker does it: what its volumes need comes first. */
  start(id: string): Promise<void>;
  /** As Docker does it: the signal comes at once, and the end, which is one for all who asked for it, some time later. */
  stop(id: string, seconds: number): Promise<void>;
  startController(): void;
  killController(): void;
  gate(): Gate | null;
  cut(): void;
  heal(): void;
  powerOff(): void;
  powerOn(): void;
};

const wallStartMs = 1_800_000_000_000;
/** Docker restarts what has ended, after its first and shortest wait. */
const restartMs = { min: 100, max: 1_000 };
/** From the signal to the end. */
const endMs = { min: 20, max: 500, slowMax: 5_000 };
const slowEndShare = 0.1;
const bootMs = { min: 500, max: 5_000 };
const publishMs = { min: 5, max: 60 };
const publishAgainMs = 500;

export function createHost(world: () => World, text: string): Host {
  const name = parseNodeName(text);
  const { scheduler, random } = world();
  const skewMs = random.between(-2_000, 2_000);
  const bootOffsetMs = random.between(1e6, 1e9);
  const startedMs = new Map<string, number>();
  const mute = new Set<string>();
  /** Of containers that were told to stop, by their run. */
  const ends = new Map<string, Promise<void>>();
  let boots = 0;
  let isUp = true;
  let isCut = false;
  let isBooting = false;
  let controller: Controller | null = null;

  const engine = createFakeEngine({
    newId: () => random.hex(64),
    refuses: ({ volumes }) => host.plugin.refuses(volumes),
    onStart(id) {
      startedMs.set(id, scheduler.nowMs());
      checkWriters(id);
    },
    onChange: publish,
    onCrash: restart,
  });

  function restart(id: string): void {
    const policy = policyOf(id);
    if (policy === undefined || policy === 'no' || policy === '') return;
    void host.later(random.between(restartMs.min, restartMs.max), async () => {
      const now = engine.all().find((one) => one.id === id);
      if (now?.status === 'exited' && now.policy === policy) await host.start(id).catch(() => undefined);
    });
  }
  const policyOf = (id: string) => engine.all().find((one) => one.id === id)?.policy;

  function checkWriters(id: string): void {
    const mine = engine.all().find((one) => one.id === id);
    for (const other of world().hosts) {
      if (other === host) continue;
      for (const { name: theirs, status, volumes } of other.engine.all())
        if (status === 'running' && volumes.some((volume) => mine?.volumes.includes(volume)))
          world().violate(
            'W1',
            `${mine?.name} starts on ${name} with a volume that ${theirs} writes to on ${other.name}`,
          );
    }
  }

  const client = world().store.connect(name);
  let told: ReadonlyMap<string, string> = new Map();
  let isPublishing = false;

  /** As the proxy does it a moment later, or when the store is back: what runs, in the store. */
  function publish(): void {
    if (isPublishing) return;
    isPublishing = true;
    const after = (ms: number) =>
      scheduler.after(ms, () => {
        isPublishing = false;
        if (!isUp) return;
        const rows = engine.all();
        const next = new Map(rows.map(({ id, status }) => [id, status]));
        const changed = rows.filter(({ id, status }) => told.get(id) !== status);
        const gone = [...told.keys()].filter((id) => !next.has(id));
        if (changed.length + gone.length === 0) return;
        isPublishing = true;
        const operations: readonly Operation[] = [
          ...changed.map(
            (row) => ({ kind: 'set', key: keyOf(row.id), value: JSON.stringify(published(row)) }) as const,
          ),
          ...gone.map((id) => ({ kind: 'delete', key: keyOf(id) }) as const),
        ];
        client.transact(operations).then(
          () => {
            told = next;
            after(random.between(publishMs.min, publishMs.max));
          },
          () => after(publishAgainMs),
        );
      });
    after(random.between(publishMs.min, publishMs.max));
  }
  const keyOf = (id: string) => `proxy/containers/${name}/${id}`;

  const host: Host = {
    name,
    engine,
    mute,
    startedMs,
    plugin: createPlugin(world, () => host),
    isUp: () => isUp,
    isCut: () => isCut,
    isWell: () => isUp && !isCut,
    controller: () => controller,
    gate: () => controller?.gate ?? null,
    bootMs: () => bootOffsetMs + scheduler.nowMs(),
    wallMs: () => Math.floor(wallStartMs + skewMs + scheduler.nowMs()),
    later(ms, work) {
      const boot = boots;
      return new Promise((resolve, reject) => {
        scheduler.after(ms, () => {
          if (!isUp || boot !== boots) return;
          Promise.resolve()
            .then(work)
            .then(
              (value) => isUp && boot === boots && resolve(value),
              (error: unknown) => isUp && boot === boots && reject(error),
            );
        });
      });
    },
    async start(id) {
      await host.plugin.obtain(engine.all().find((one) => one.id === id)?.volumes ?? []);
      await engine.start(id);
    },
    async stop(id, seconds) {
      if (engine.all().find((one) => one.id === id)?.status !== 'running') return;
      const run = () => `${id} ${startedMs.get(id)}`;
      const told = run();
      const ms = random.between(endMs.min, random.chance(slowEndShare) ? endMs.slowMax : endMs.max);
      const end =
        ends.get(told) ?? host.later(ms, async () => void (run() === told && (await engine.stop(id, seconds))));
      ends.set(told, end);
      await end;
    },
    isBooting: () => isBooting,
    startController() {
      if (!isUp || isBooting || controller !== null) return;
      world().trace(() => `${name}: controller starts`);
      controller = startController(world(), host);
    },
    killController() {
      if (controller === null) return;
      world().trace(() => `${name}: controller killed`);
      controller.kill();
      controller = null;
    },
    cut() {
      isCut = true;
      world().store.cut(name, random.chance(0.3) ? 'answers' : 'both');
    },
    heal() {
      isCut = false;
      world().store.heal(name);
    },
    powerOff() {
      if (!isUp) return;
      world().trace(() => `${name}: power off`);
      host.killController();
      isUp = false;
      boots += 1;
      engine.lose();
      host.plugin.lose();
    },
    powerOn() {
      if (isUp) return;
      world().trace(() => `${name}: power on`);
      isUp = true;
      isBooting = true;
      told = new Map();
      publish();
      boots += 1;
      // Docker answers nobody before it has started what was running.
      void host.later(random.between(bootMs.min, bootMs.max), async () => {
        const ids = engine
          .all()
          .filter(({ isStartedAtBoot: is }) => is)
          .map(({ id }) => id);
        for (const id of ids) await host.start(id).catch(() => undefined);
        isBooting = false;
        host.startController();
      });
    },
  };

  return host;
}

/** Of what the proxy says of a container, what controllers read. */
function published({ status, labels }: FakeRow): object {
  const service = labels['flock.service'] ?? null;
  const declared = { service, routes: service === null ? [] : [{ targetPort: 80 }], links: [] };
  return { state: status, healthy: status === 'running', declared };
}
