import { messageOf } from '../../../controller/model/errors.ts';
import { isOver, moveLimitsDefault } from '../../../controller/model/move.ts';
import { planMove } from '../../../controller/model/move-plan.ts';
import type { WorkloadDoc } from '../../../controller/model/workload.ts';
import { beginMove } from '../../../controller/moves/beginning.ts';
import { idOf } from './checks.ts';
import { movesOf, type World, workloadsOf } from './world.ts';

/** When all is well, one thing happens, and what is promised of it must come true. */

const lookMs = 250;
/** A dead host's session, the guard, and containers made anew. */
const failoverMsMax = 45_000;
const moveMsMax = 60_000;
/** All that could start it again would have done so. */
const stoppedMs = 90_000;

type Pause = (ms: number) => Promise<void>;

export async function calmEvent(world: World, pause: Pause): Promise<void> {
  const running = workloadsOf(world.store).filter(
    ({ wanted, name }) => wanted === 'running' && !name.includes('.left'),
  );
  if (running.length === 0) return;
  const doc = world.random.pick(running);
  const event = world.random.pick([moves, stays, isMadeElsewhere]);
  world.trace(() => `CALM ${event.name} ${doc.name}`);
  await event(world, doc, pause);
}

async function moves(world: World, { name: service, node }: WorkloadDoc, pause: Pause): Promise<void> {
  const to = world.random.pick(world.hosts.filter((host) => host.name !== node)).name;
  const begin = world.random.pick(world.hosts).controller()?.begin;
  if (begin === undefined) return world.violate('moves succeed', 'there is no controller');
  const plan = { service, to, limits: moveLimitsDefault };
  const begun = await beginMove(
    begin,
    'operator',
    (facts) => planMove(plan, facts),
    new AbortController().signal,
  ).catch((error: unknown) => world.violate('moves succeed', messageOf(error)));
  if (begun === undefined) return;
  const { id } = begun.move;
  const found = () => movesOf(world.store).find((doc) => doc.id === id);
  for (let leftMs = moveMsMax; leftMs > 0 && !isOver(found() ?? begun.move); leftMs -= lookMs) await pause(lookMs);
  const move = found();
  if (move?.step !== 'done')
    world.violate('moves succeed', `${service} to ${to}: ${move?.step} ${move?.failure?.reason}`);
  if ((world.pauses.get(service) ?? 0) > world.scheduler.nowMs())
    world.violate('M5', `${service} is held, though its move is over`);
}

async function stays(world: World, { id, name, node }: WorkloadDoc, pause: Pause): Promise<void> {
  const { engine } = world.host(node);
  world.touched.add(name);
  engine.personStops(name);
  await pause(stoppedMs);
  const runs = world.hosts.some((host) =>
    host.engine.all().some((row) => row.status === 'running' && idOf(row) === id),
  );
  if (runs) world.violate('M6', `${name} runs, though a person has stopped it`);
}

async function isMadeElsewhere(world: World, { id, name, node }: WorkloadDoc, pause: Pause): Promise<void> {
  const host = world.host(node);
  host.powerOff();
  const runsElsewhere = () =>
    world.hosts.some(
      (one) => one !== host && one.engine.all().some((row) => row.status === 'running' && idOf(row) === id),
    );
  for (let leftMs = failoverMsMax; leftMs > 0 && !runsElsewhere(); leftMs -= lookMs) await pause(lookMs);
  if (!runsElsewhere()) world.violate('failover', `${name} of ${node}, which is dead, runs nowhere`);
  host.powerOn();
}
