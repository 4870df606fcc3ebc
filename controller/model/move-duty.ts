import { hashText, mix } from './hash.ts';
import { canAbort, isOver, type MoveDoc, type MoveLimits, turnOf } from './move.ts';
import type { NodeName } from './names.ts';

/** Who does what about a move now, as one controller sees it. Pure. */
export type MoveDuty =
  /** Nothing. */
  | { readonly kind: 'none' }
  /** This node's turn. */
  | { readonly kind: 'work' }
  /** The node whose turn it is is dead, or its controller gone, and to say so is up to this one now. */
  | { readonly kind: 'lost'; readonly reason: string }
  /** As `lost`, unless somebody else says it before. */
  | { readonly kind: 'wait'; readonly untilBootMs: number };

/** What a controller sees of the nodes. Boot times are its own. */
export type NodesSeen = {
  /** All members, dead or alive. */
  readonly nodes: ReadonlyMap<NodeName, { readonly poolLost?: boolean | undefined }>;
  readonly alive: ReadonlySet<NodeName>;
  readonly deadSinceMs: ReadonlyMap<NodeName, number>;
  /** Nodes whose controller is not at work. */
  readonly silentSinceMs: ReadonlyMap<NodeName, number>;
  /** A node is dead for good, as far as its turn goes, after this time without a session. */
  readonly guardMs: number;
  readonly nowBootMs: number;
};

/** Between two controllers that could say it: the first one's word is there by then. */
const rankMs = 1_000;

export function dutyOfMove(doc: MoveDoc, me: NodeName, seen: NodesSeen): MoveDuty {
  const turn = turnOf(doc);
  if (turn === null || isOver(doc)) return { kind: 'none' };
  if (turn === me) return { kind: 'work' };
  const gone = goneFrom(turn, seen);
  if (gone === null) return { kind: 'none' };
  const untilBootMs = gone.atBootMs + rankMs * rankOf(doc, me, seen);
  return seen.nowBootMs >= untilBootMs ? { kind: 'lost', reason: gone.why } : { kind: 'wait', untilBootMs };
}

/**
 * Docker starts a controller that has crashed again within a second or so, and an update takes some: after this time nobody waits for it any
 * more. Its host lives, so this is no reason to take anything from it.
 */
const silenceMs = 15_000;

/** From when on (boot clock) nobody waits any more for what a node is to do, and why; null: it is expected to do it. */
function goneFrom(node: NodeName, seen: NodesSeen): { readonly atBootMs: number; readonly why: string } | null {
  if (!seen.alive.has(node)) {
    const atBootMs = deadFrom(node, seen);
    return atBootMs === null ? null : { atBootMs, why: `${node} is dead` };
  }
  const since = seen.silentSinceMs.get(node);
  return since === undefined ? null : { atBootMs: since + silenceMs, why: `the controller of ${node} has gone` };
}

/** From when on (boot clock) a node without a session counts as dead; null: nobody has seen it die. */
function deadFrom(node: NodeName, { nodes, deadSinceMs, guardMs }: NodesSeen): number | null {
  if (!nodes.has(node)) return Number.NEGATIVE_INFINITY;
  const since = deadSinceMs.get(node);
  return since === undefined ? null : since + guardMs;
}

function rankOf({ id }: MoveDoc, me: NodeName, { alive, silentSinceMs }: NodesSeen): number {
  const score = (node: NodeName) => mix(hashText(id) ^ hashText(node));
  return [...alive].filter((node) => node !== me && !silentSinceMs.has(node) && score(node) > score(me)).length;
}

/** Why a step that runs is to end now, as a failure; null: it goes on. */
export function interruptionOf(doc: MoveDoc, me: NodeName, seen: NodesSeen): string | null {
  // Others take its volumes, and make its containers as soon as nobody moves them any more.
  if (doc.step === 'restoring' && doc.volumes.length > 0 && seen.nodes.get(me)?.poolLost === true)
    return `the pool of ${me} has failed`;
  if (!canAbort(doc)) return null;
  if (doc.abort !== null) return `turned back: ${doc.abort}`;
  const other = doc.from === me ? doc.to : doc.from;
  // Copies can be made without the other controller, and what has come is kept; before the pause it has to be back.
  if (doc.step === 'copying' && seen.alive.has(other)) return null;
  const gone = goneFrom(other, seen);
  return gone !== null && seen.nowBootMs >= gone.atBootMs ? gone.why : null;
}

/** What is left of the pause, or where nothing waits, of the time that the step may take. */
export function pauseLeftMs({ pausedAtMs, stepSinceMs, limits }: MoveDoc, nowMs: number): number {
  return (pausedAtMs ?? stepSinceMs) + limits.pauseMs - nowMs;
}

/** Of the pause, for a target that does not become ready: what is there is stopped, handed back, and started at the source. */
export function wayBackMs({ pauseMs }: MoveLimits): number {
  return Math.min(wayBackMsMax, pauseMs / 3);
}

const wayBackMsMax = 8_000;
/** At the least, whatever is left of the pause: what was begun must be tried once. */
const startMsMin = 5_000;
/** Acknowledgements of all proxies, and what lies around them. */
const pausingMs = 8_000;
/** Beyond the drain itself: reports of the proxies. */
const drainMarginMs = 6_000;
const releasingMsMin = 8_000;
/** Of the ways back and of cleaning: they are tried for this long however late it is. */
const backMs = 60_000;
/** The store may be away, and without it nobody may write to the volumes. */
const restoringMs = 180_000;

/** How long the executor of the step may take from now on; 0 or less: its time is over. */
export function stepLimitMs(doc: MoveDoc, nowMs: number): number {
  const { limits, stepSinceMs } = doc;
  const left = pauseLeftMs(doc, nowMs);
  switch (doc.step) {
    case 'preparing':
      return stepSinceMs + limits.prepareMs - nowMs;
    case 'copying':
      return stepSinceMs + limits.copyMs - nowMs;
    case 'pausing':
      return pausingMs;
    case 'draining':
      return Math.min(left, limits.drainMs + drainMarginMs);
    case 'stopping':
    case 'committing':
      return left;
    case 'starting':
      return Math.max(startMsMin, doc.pausedAtMs === null ? left : left - wayBackMs(limits));
    case 'releasing':
      return Math.max(releasingMsMin, left);
    case 'restoring':
      return restoringMs;
    default:
      return backMs;
  }
}
