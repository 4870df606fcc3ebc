import { byName } from '../cluster/entries.ts';
import type { EventLog } from '../cluster/event-log.ts';
import { decodeSpace, keys } from '../model/cluster.ts';
import { FlockError } from '../model/errors.ts';
import { isOver, type MoveDoc, type MoveId, moveIdSchema, movesKeptMax } from '../model/move.ts';
import type { MovePlan, PlanFacts } from '../model/move-plan.ts';
import { summaryOf } from '../model/move-summary.ts';
import type { WorkloadId } from '../model/workload.ts';
import type { Clock } from '../program/home.ts';
import type { ClusterView, Stored } from '../program/view.ts';
import type { Store } from '../store/store.ts';
import { listMoves, listWorkloads, putMove, putWorkload } from './records.ts';
import { readRoutes } from './routes.ts';

export type BeginParts = {
  readonly store: Store;
  readonly view: Pick<ClusterView, 'seen'>;
  readonly events: EventLog;
  readonly clock: Pick<Clock, 'nowMs' | 'randomHex' | 'sleep'>;
};

/** What a plan is made of, and the indexes that it starts from. */
export type Facts = PlanFacts & {
  readonly indexes: ReadonlyMap<WorkloadId, string>;
  readonly moves: readonly Stored<MoveDoc>[];
};

const attemptsMax = 5;
const againMs = 200;
/** More at once would only share the same networks and disks. */
const openMovesMax = 64;
/** Of a transaction of the store. */
const deletionsMax = 30;
const idBytes = 4;

/** Everything fresh but the volumes, whose owners the commit compares anyhow, and the nodes. Throws `not-ready`, `store-unavailable`. */
export async function readFacts({ store, view }: Pick<BeginParts, 'store' | 'view'>): Promise<Facts> {
  const seen = view.seen();
  if (seen === null) throw new FlockError('not-ready', 'the controller has not seen the store yet: try again');
  const [workloads, moves, routes, spaces] = await Promise.all([
    listWorkloads(store),
    listMoves(store),
    readRoutes(store),
    store.list(`${keys.spaces}/`),
  ]);
  const open = new Set(moves.filter(({ doc }) => !isOver(doc)).map(({ doc }) => doc.id as string));
  const rooms = byName(spaces);
  return {
    // A move that is not there any more, or over, keeps nobody.
    workloads: workloads.map(({ doc }) => (doc.move === null || open.has(doc.move) ? doc : { ...doc, move: null })),
    volumes: [...seen.volumes.values()],
    nodes: [...seen.nodes.values()].map((doc) => {
      const room = rooms.get(doc.name);
      const space = room === undefined ? null : decodeSpace(room.value);
      const isAlive = seen.alive.has(doc.name);
      return { ...doc, alive: isAlive, controller: !seen.silentSinceMs.has(doc.name), deadSinceMs: null, space };
    }),
    routed: routes.services,
    indexes: new Map(workloads.map(({ doc, index }) => [doc.id, index])),
    moves,
  };
}

/** The one reason of several, or all of them. */
export function refusal({ service, to, obstacles }: MovePlan): FlockError {
  const text = obstacles.length === 1 ? obstacles[0] : `\n${obstacles.map((obstacle) => `  - ${obstacle}`).join('\n')}`;
  return new FlockError('move-refused', `${service} can't be moved to ${to}: ${text}`, { obstacles });
}

/**
 * Makes the record of a move that `plan` finds nothing against; the controllers of both nodes do the rest. `plan` may be asked again, when
 * one of the containers was changed meanwhile.
 */
export async function beginMove(
  parts: BeginParts,
  cause: MoveDoc['cause'],
  plan: (facts: Facts) => MovePlan,
  signal: AbortSignal,
): Promise<{ readonly plan: MovePlan; readonly move: MoveDoc }> {
  const { store, events, clock } = parts;
  for (let attempt = 1; ; attempt += 1) {
    const facts = await readFacts(parts);
    const planned = plan(facts);
    if (planned.obstacles.length > 0) throw refusal(planned);
    const open = facts.moves.filter(({ doc }) => !isOver(doc));
    if (open.length >= openMovesMax)
      throw new FlockError(
        'too-many-requests',
        `${open.length} moves run already: wait for some of them ("flockctl moves ls")`,
      );
    const move = moveOf(planned, cause, moveIdSchema.parse(clock.randomHex(idBytes)), clock.nowMs());
    const claims = planned.workloads.map((workload) =>
      putWorkload(
        { ...workload, move: move.id, revision: workload.revision + 1 },
        facts.indexes.get(workload.id) ?? '',
      ),
    );
    const outcome = await store.transact([putMove(move, null), ...claims]);
    if (outcome.kind === 'done') {
      events.tell(
        'move-started',
        move.service,
        `${summaryOf(move)}${cause === 'drain' ? `, because ${move.from} is drained` : ''} (move ${move.id})`,
      );
      await prune(store, facts.moves);
      return { plan: planned, move };
    }
    if (attempt === attemptsMax)
      throw new FlockError(
        'store-unavailable',
        `the containers of ${planned.service} are changed by others all the time: try again`,
      );
    await clock.sleep(againMs, signal);
    signal.throwIfAborted();
  }
}

function moveOf(plan: MovePlan, cause: MoveDoc['cause'], id: MoveId, nowMs: number): MoveDoc {
  const { service, workloads, volumes, services, from, to, limits } = plan;
  return {
    id,
    service,
    members: workloads.map(({ id: workload, name, containerId }) => {
      return { workload, name, sourceId: containerId ?? '', targetId: null };
    }),
    volumes,
    services,
    from,
    to,
    cause,
    limits,
    step: 'preparing',
    stepSinceMs: nowMs,
    createdAtMs: nowMs,
    pausedAtMs: null,
    progress: null,
    failure: null,
    abort: null,
    history: [],
    revision: 1,
  };
}

/** The oldest of those that are over go. */
async function prune(store: Store, moves: readonly Stored<MoveDoc>[]): Promise<void> {
  const old = moves.filter(({ doc }) => isOver(doc)).slice(movesKeptMax, movesKeptMax + deletionsMax);
  if (old.length === 0) return;
  const deletions = old.map(({ doc }) => ({ kind: 'delete', key: `moves/${doc.id}` }) as const);
  await store.transact(deletions).catch(() => undefined);
}
