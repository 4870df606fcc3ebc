import { messageOf } from '../../../controller/model/errors.ts';
import { isOver, type MoveDoc, moveLimitsDefault } from '../../../controller/model/move.ts';
import { planMove } from '../../../controller/model/move-plan.ts';
import type { WorkloadDoc } from '../../../controller/model/workload.ts';
import { beginMove } from '../../../controller/moves/beginning.ts';
import { idOf } from './checks.ts';
import type { Host } from './host.ts';
import { movesOf, type World, workloadsOf } from './world.ts';

/** When all is well, one thing happens, and what is promised of it must come true. */

const lookMs = 250;
/** A dead host's session, the guard, and containers made anew. */
const failoverMsMax = 45_000;
const moveMsMax = 150_000;
/** About as long as a move takes. */
const wholeMoveMs = 4_000;
/** All that could start it again would have done so. */
const stoppedMs = 90_000;

type Pause = (ms: number) => Promise<void>;

export async function calmEvent(world: World, pause: Pause): Promise<void> {
  const running = workloadsOf(world.store).filter(
    ({ wanted, name }) => wanted === 'running' && !name.includes('.left'),
  );
  if (running.length === 0) return;
  const doc = world.random.pick(running);
  const event = world.random.pick([moves, stays, isMadeElsewhere, endsWithoutOne]);
  world.trace(() => `CALM ${event.name} ${doc.name}`);
  await event(world, doc, pause);
}

async function moves(world: World, doc: WorkloadDoc, pause: Pause): Promise<void> {
  const to = world.random.pick(world.hosts.filter((host) => host.name !== doc.node));
  const move = await begun(world, doc, to);
  if (move === null) return;
  const { step, failure } = await over(world, move, pause);
  if (step !== 'done') world.violate('moves succeed', `${doc.name} to ${to.name}: ${step} ${failure?.reason}`);
  if ((world.pauses.get(doc.name) ?? 0) > world.scheduler.nowMs())
    world.violate('M5', `${doc.name} is held, though its move is over`);
}

/** In the middle of a move one of its nodes dies, or loses its controller. */
async function endsWithoutOne(world: World, doc: WorkloadDoc, pause: Pause): Promise<void> {
  const to = world.random.pick(world.hosts.filter((host) => host.name !== doc.node));
  const move = await begun(world, doc, to);
  if (move === null) return;
  await pause(world.random.between(0, wholeMoveMs));
  const host = world.random.pick([to, world.host(doc.node)]);
  const isDeath = world.random.chance(0.5);
  if (isDeath) host.powerOff();
  else host.killController();
  const { step } = await over(world, move, pause);
  if (!isOver({ ...move, step })) world.violate('moves end', `move ${move.id} is at ${step}, without ${host.name}`);
  if (isDeath) host.powerOn();
  else host.startController();
}

/** Null, and a violation: it was refused. */
async function begun(world: World, { name: service }: WorkloadDoc, to: Host): Promise<MoveDoc | null> {
  const begin = world.random.pick(world.hosts).controller()?.begin;
  const plan = { service, to: to.name, limits: moveLimitsDefault };
  const signal = new AbortController().signal;
  try {
    if (begin === undefined) throw new Error('there is no controller');
    return (await beginMove(begin, 'operator', (facts) => planMove(plan, facts), signal)).move;
  } catch (error) {
    world.violate('moves succeed', `${service} to ${to.name}: ${messageOf(error)}`);
    return null;
  }
}

/** The record at its end, or when the time is over. */
async function over({ store }: World, move: MoveDoc, pause: Pause): Promise<MoveDoc> {
  const found = () => movesOf(store).find(({ id }) => id === move.id) ?? move;
  for (let leftMs = moveMsMax; leftMs > 0 && !isOver(found()); leftMs -= lookMs) await pause(lookMs);
  return found();
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
