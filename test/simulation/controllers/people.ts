import { drainNode } from '../../../controller/cluster/membership.ts';
import { keys, type VolumeDoc } from '../../../controller/model/cluster.ts';
import { messageOf } from '../../../controller/model/errors.ts';
import { isOver, type MoveLimits } from '../../../controller/model/move.ts';
import { planMove } from '../../../controller/model/move-plan.ts';
import { parseDatasetId, parseVolumeName } from '../../../controller/model/names.ts';
import { parseOptions } from '../../../controller/model/options.ts';
import { askToTurnBack } from '../../../controller/moves/aborting.ts';
import { beginMove } from '../../../controller/moves/beginning.ts';
import type { Operation } from '../../../controller/store/store.ts';
import { flockMount, imageId } from '../../support/inspected.ts';
import type { Host } from './host.ts';
import { movesOf, type World } from './world.ts';

/** People run containers, move them, drain nodes, and use docker beside all that. */
export type People = {
  /** Containers with their volumes, before anything else happens. */
  begin(): Promise<void>;
  act(): void;
  /** They undo what would keep the cluster from coming to rest, and go home. */
  stop(): Promise<void>;
};

const lateMsMax = 10_000;
const policies = ['no', 'unless-stopped', 'always', 'on-failure'] as const;
const image = { id: imageId, names: new Set(['postgres:15']) };

type Ran = { readonly host: Host; readonly name: string; readonly volumes: readonly string[] };
/** `from`: of `--volumes-from`. */
type Shared = { readonly volumes: readonly string[]; readonly from: readonly string[] | null };

export function createPeople(world: World): People {
  const { scheduler, random, store } = world;
  const admin = store.connect('people');
  const names: string[] = [];
  const ran: Ran[] = [];

  const volumeDoc = (name: string, owner: Host): VolumeDoc => {
    const others = world.hosts.filter((one) => one !== owner).map((one) => one.name);
    const from = random.whole(0, others.length - 1);
    return {
      ...{ id: parseDatasetId(`${name}.00000001`), name: parseVolumeName(name), createdAtMs: 1 },
      ...{ options: parseOptions({}), owner: owner.name, epoch: 1, revision: 1, trashed: null },
      replicas: random.chance(0.5) ? others : others.slice(from, from + 1),
    };
  };

  /** `shared`: volumes of others, which it mounts as well. */
  async function run(host: Host, name: string, own: readonly string[], shared: Shared | null): Promise<void> {
    const docs = own.map((volume) => volumeDoc(volume, host));
    const volumes = [...own, ...(shared?.volumes ?? [])];
    const operations = docs.map((doc): Operation => {
      return { kind: 'compare-and-set', key: keys.volume(doc.id), value: JSON.stringify(doc), index: null };
    });
    for (const operation of operations) await admin.transact([operation]);
    host.engine.images.set(imageId, image);
    const restart = { Name: random.pick(policies), MaximumRetryCount: 0 };
    const isRouted = volumes.length === 0 || random.chance(0.7);
    host.engine.run(name, {
      config: {
        StopTimeout: 5,
        Labels: isRouted ? { 'flock.service': name, 'flock.route': `http://${name}.example -> 80` } : {},
      },
      hostConfig: { RestartPolicy: restart, PortBindings: {}, Binds: [], VolumesFrom: shared?.from ?? null },
      mounts: volumes.map((volume) => ({ ...flockMount, Name: volume, Destination: `/${volume}` })),
    });
    names.push(name);
    ran.push({ host, name, volumes });
  }

  /** Of a container that was run before, if it has some: all of them (`--volumes-from`), or one (`-v`). */
  function shares(): (Shared & { readonly host: Host }) | null {
    const others = ran.filter(({ volumes }) => volumes.length > 0);
    if (others.length === 0 || random.chance(0.6)) return null;
    const { host, name, volumes } = random.pick(others);
    return random.chance(0.5) ? { host, volumes, from: [name] } : { host, volumes: [random.pick(volumes)], from: null };
  }

  /** By a random node that answers, as flockctl would. */
  function asked(what: string, work: (host: Host) => Promise<unknown>): void {
    const host = random.pick(world.hosts);
    const controller = host.controller();
    if (controller === null || !controller.gate.isRunning()) return;
    world.trace(() => `PEOPLE ${what} at ${host.name}`);
    work(host).catch((error: unknown) => world.trace(() => `PEOPLE ${what}: ${messageOf(error)}`));
  }

  function move(): void {
    const limits: MoveLimits = {
      ...{ prepareMs: 60_000, copyMs: 60_000 },
      ...{ pauseMs: random.pick([16_000, 30_000]), drainMs: 3_000 },
    };
    const [service, to] = [random.pick(names), random.pick(world.hosts).name];
    asked(`move ${service} to ${to}`, async (host) => {
      const begin = host.controller()?.begin;
      if (begin === undefined) return;
      await beginMove(
        begin,
        'operator',
        (facts) => planMove({ service, to, limits }, facts),
        new AbortController().signal,
      );
    });
  }

  function abort(): void {
    const open = movesOf(store).filter((doc) => !isOver(doc));
    if (open.length === 0) return;
    const { id } = random.pick(open);
    asked(`abort ${id}`, () => askToTurnBack(admin, id, 'lunch'));
  }

  function drain(): void {
    const { name } = random.pick(world.hosts);
    asked(`drain ${name}`, () => drainNode(admin, name, true));
    scheduler.after(random.between(5_000, 40_000), () => asked(`undrain ${name}`, () => drainNode(admin, name, false)));
  }

  /** Of a container by its name on any host where it runs. */
  function docker(): void {
    const host = random.pick(world.hosts);
    // What was put away is theirs alone.
    const rows = host.isUp() ? host.engine.all().filter(({ name }) => names.includes(name)) : [];
    if (rows.length === 0) return;
    const row = random.pick(rows);
    const what = random.pick(['stop', 'start', 'restart', 'rm', 'crash'] as const);
    if (what !== 'crash' && what !== 'restart') world.touched.add(row.name);
    world.trace(() => `PEOPLE docker ${what} ${row.name} on ${host.name}`);
    const { engine } = host;
    const isRunning = row.status === 'running';
    if (what === 'crash' && isRunning) engine.crash(row.name, 1);
    if (what === 'stop' && isRunning) engine.personStops(row.name);
    if (what === 'start') void host.start(row.id).catch(() => undefined);
    if (what === 'restart' && isRunning) {
      engine.personStops(row.name);
      void host.later(10, () => host.start(row.id).catch(() => undefined));
    }
    if (what === 'rm' && random.chance(0.3)) engine.personRemoves(row.name);
  }

  return {
    async begin() {
      const count = random.whole(1, 4);
      for (let number = 1; number <= count; number += 1) {
        const shared = shares();
        const host = shared?.host ?? random.pick(world.hosts);
        const own = random.chance(0.3) ? [] : random.chance(0.6) ? [`v${number}`] : [`v${number}`, `w${number}`];
        await run(host, `app${number}`, own, shared);
      }
      world.trace(
        () =>
          `containers: ${world.hosts.map((host) => `${host.name}: ${Object.keys(host.engine.states())}`).join('; ')}`,
      );
    },
    act() {
      const chance = random.next();
      if (chance < 0.6) move();
      else if (chance < 0.7) abort();
      else if (chance < 0.8) drain();
      else docker();
    },
    async stop() {
      // What they had asked for before may come late.
      await new Promise<void>((resolve) => void scheduler.after(lateMsMax, resolve));
      for (const { name } of world.hosts)
        for (;;) {
          const isDone = await drainNode(admin, name, false).then(
            () => true,
            () => false,
          );
          if (isDone) break;
        }
    },
  };
}
