import { z } from 'zod';
import { type NodeName, parseNodeName } from './names.ts';
import { type WorkloadId, type WorkloadVolume, workloadIdSchema, workloadVolumeSchema } from './workload.ts';

/**
 * A live migration, as the store has it: which step is to be done now, and on which node. The controller of that node does it and says
 * with compare-and-set what came of it; `advance` is all that decides what follows (docs/design.md, section 9).
 *
 *     moves/ID       MoveDoc
 *
 *     preparing ─ copying ─ pausing ─ draining ─ stopping ─ committing ─┃─ starting ─ releasing ─ cleaning ─ done
 *         │          │         │         │           │          │       ┃     │
 *         │          │         └────┬────┘           └────┬─────┘       ┃  returning
 *         │          │              │                restoring ◀────────┃─────┘
 *         │          │          resuming ◀────────────────┘             ┃
 *         └────┬─────┘              │                                 commit
 *           clearing ◀──────────────┘
 *              │
 *            failed
 *
 * Before the commit a failure leads back to the source, after it the target has the volumes and either serves or gives them back.
 */
export type MoveDoc = {
  readonly id: MoveId;
  /** As it was asked for. */
  readonly service: string;
  /** In the order in which they are started; they are stopped in the opposite one. */
  readonly members: readonly MoveMember[];
  readonly volumes: readonly WorkloadVolume[];
  /** Services with routes or links: what is paused. */
  readonly services: readonly string[];
  readonly from: NodeName;
  readonly to: NodeName;
  readonly cause: 'operator' | 'drain';
  readonly limits: MoveLimits;
  readonly step: MoveStep;
  /** Wall clock of who wrote it; for people, and for those who wait for a node that is dead. */
  readonly stepSinceMs: number;
  readonly createdAtMs: number;
  /** Since when new requests wait (wall clock of the source); null: they do not. */
  readonly pausedAtMs: number | null;
  /** Of the copying, while it runs and afterwards. */
  readonly progress: MoveProgress | null;
  /** What made it turn back. */
  readonly failure: { readonly step: MoveStep; readonly reason: string } | null;
  /** Somebody wants it to turn back, and why. Too late once it is committed. */
  readonly abort: string | null;
  readonly history: readonly MoveLine[];
  readonly revision: number;
};

export type MoveId = string & { readonly move: unique symbol };

export type MoveMember = {
  readonly workload: WorkloadId;
  readonly name: string;
  /** On the source, and on the target once it is made there. */
  readonly sourceId: string;
  readonly targetId: string | null;
  /** Its ports that took no connections on the source, while others did or its health check had failed: nobody waits for them. Absent: none. */
  readonly closedPorts?: readonly number[] | undefined;
  /** Its health check had failed on the source: nobody waits for that either. Absent: no. */
  readonly isUnhealthy?: boolean | undefined;
};

export type MoveLimits = {
  /** Image and containers on the target. */
  readonly prepareMs: number;
  /** All of the copying before the pause. */
  readonly copyMs: number;
  /** How long new requests are to wait at most. The target has to be ready some seconds before, so that there is time to go back. */
  readonly pauseMs: number;
  /** Of the pause, for requests that were begun before it. */
  readonly drainMs: number;
};

export type MoveProgress = {
  readonly sentBytes: number;
  readonly totalBytes: number | null;
  readonly bytesPerSecond: number;
};

/** A step that is over. `startedAtMs`: wall clock of the node that did it. */
export type MoveLine = {
  readonly step: MoveStep;
  readonly node: NodeName;
  readonly startedAtMs: number;
  readonly ms: number;
  readonly note: string;
};

export const moveSteps = [
  'preparing',
  'copying',
  'pausing',
  'draining',
  'stopping',
  'committing',
  'starting',
  'releasing',
  'cleaning',
  'done',
  'returning',
  'restoring',
  'resuming',
  'clearing',
  'failed',
] as const;
export type MoveStep = (typeof moveSteps)[number];

const holding: ReadonlySet<MoveStep> = new Set([
  ...(['pausing', 'draining', 'stopping', 'committing', 'starting', 'releasing'] as const),
  ...(['returning', 'restoring', 'resuming'] as const),
]);

/** Whether people wait at this step, or may. */
export const holdsServices = (step: MoveStep): boolean => holding.has(step);

/** Whether the move has not yet begun to stop or start any container of the old node. */
export function isBeforeStop(step: MoveStep): boolean {
  return moveSteps.indexOf(step) < moveSteps.indexOf('stopping');
}

export type StepOutcome =
  /** `members`, `services`, `pausedAtMs`: what it has changed of the record. */
  | {
      readonly kind: 'done';
      readonly note: string;
      readonly members?: readonly MoveMember[];
      readonly services?: readonly string[];
      readonly pausedAtMs?: number | null;
    }
  | { readonly kind: 'failed'; readonly reason: string }
  /** The node whose turn it is is dead, or has no controller any more. */
  | { readonly kind: 'lost'; readonly reason: string };

type Rule = {
  readonly turn: 'from' | 'to';
  readonly next: MoveStep;
  /** Where a failure leads; null: the step is as good as done then, for what it did not do ends by itself or is done later. */
  readonly failed: MoveStep | null;
  /** Where it leads when the node whose turn it is is dead, or its controller gone. */
  readonly lost: MoveStep;
};

const rules: Readonly<Record<Exclude<MoveStep, 'done' | 'failed'>, Rule>> = {
  preparing: { turn: 'to', next: 'copying', failed: 'clearing', lost: 'failed' },
  copying: { turn: 'from', next: 'pausing', failed: 'clearing', lost: 'clearing' },
  pausing: { turn: 'from', next: 'draining', failed: 'resuming', lost: 'clearing' },
  draining: { turn: 'from', next: 'stopping', failed: 'resuming', lost: 'clearing' },
  stopping: { turn: 'from', next: 'committing', failed: 'restoring', lost: 'clearing' },
  committing: { turn: 'from', next: 'starting', failed: 'restoring', lost: 'clearing' },
  // From here on the volumes are the target's: its death is the failover's business.
  starting: { turn: 'to', next: 'releasing', failed: 'returning', lost: 'failed' },
  releasing: { turn: 'to', next: 'cleaning', failed: null, lost: 'cleaning' },
  cleaning: { turn: 'from', next: 'done', failed: null, lost: 'done' },
  // Ends like `committing`, with the transaction that gives the volumes back. If even that fails the target keeps them.
  returning: { turn: 'to', next: 'restoring', failed: 'failed', lost: 'failed' },
  restoring: { turn: 'from', next: 'resuming', failed: 'resuming', lost: 'clearing' },
  resuming: { turn: 'from', next: 'clearing', failed: null, lost: 'clearing' },
  clearing: { turn: 'to', next: 'failed', failed: null, lost: 'failed' },
};

export function isOver({ step }: MoveDoc): boolean {
  return step === 'done' || step === 'failed';
}

/** The node that has to act; null: nobody, it is over. */
export function turnOf(doc: MoveDoc): NodeName | null {
  const { step } = doc;
  return step === 'done' || step === 'failed' ? null : doc[rules[step].turn];
}

/** Whether the volumes have changed hands, as far as the step says it. */
export function isCommitted({ step, failure }: MoveDoc): boolean {
  return failure === null && ['starting', 'releasing', 'cleaning', 'done'].includes(step);
}

/** Whether containers may have been stopped for it that are still to run. */
export function hasStoppedInVain({ failure, history }: MoveDoc): boolean {
  return failure !== null && history.some(({ step }) => step === 'stopping');
}

/** Whether asking for it to turn back still has an effect. */
export function canAbort({ step, failure }: MoveDoc): boolean {
  return failure === null && ['preparing', 'copying', 'pausing', 'draining', 'stopping', 'committing'].includes(step);
}

/** What the record becomes with the outcome of its step. Pure; the caller writes it with compare-and-set, or not at all. */
export function advance(doc: MoveDoc, outcome: StepOutcome, nowMs: number): MoveDoc {
  const { step } = doc;
  if (step === 'done' || step === 'failed') return doc;
  const rule = rules[step];
  const note = outcome.kind === 'done' ? outcome.note : outcome.reason;
  const line: MoveLine = {
    step,
    node: doc[rule.turn],
    startedAtMs: doc.stepSinceMs,
    ms: Math.max(0, nowMs - doc.stepSinceMs),
    note,
  };
  const next = outcome.kind === 'done' ? rule.next : outcome.kind === 'lost' ? rule.lost : (rule.failed ?? rule.next);
  const turnsBack = outcome.kind !== 'done' && (outcome.kind === 'lost' ? next !== rule.next : rule.failed !== null);
  return {
    ...doc,
    step: next,
    stepSinceMs: nowMs,
    ...(outcome.kind === 'done' && outcome.members !== undefined ? { members: outcome.members } : {}),
    ...(outcome.kind === 'done' && outcome.services !== undefined ? { services: outcome.services } : {}),
    ...(outcome.kind === 'done' && outcome.pausedAtMs !== undefined ? { pausedAtMs: outcome.pausedAtMs } : {}),
    failure: doc.failure ?? (turnsBack ? { step, reason: note } : null),
    history: [...doc.history, line].slice(-historyMax),
    revision: doc.revision + 1,
  };
}

/** More lines than any way through the steps has. */
const historyMax = 32;

export const moveKeys = {
  moves: 'moves',
  move: (id: MoveId) => `moves/${id}`,
} as const;

/** Moves that are over and stay to be looked at; older ones are removed by whoever begins one. */
export const movesKeptMax = 50;

export const moveLimitsDefault: MoveLimits = {
  prepareMs: 10 * 60_000,
  copyMs: 24 * 3_600_000,
  pauseMs: 30_000,
  drainMs: 10_000,
};

const count = z.int().nonnegative();
const text = z.string();
const nodeName = z.string().transform(parseNodeName);
export const moveIdSchema = z
  .string()
  .regex(/^[0-9a-f]{8}$/)
  .transform((id) => id as MoveId);
const step = z.enum(moveSteps);

/** The step of a record; null: it can't be read, as a newer flock has written it. */
export function stepOf(text: string): MoveStep | null {
  try {
    return z.object({ step }).parse(JSON.parse(text)).step;
  } catch {
    return null;
  }
}

export const moveSchema: z.ZodType<MoveDoc> = z.object({
  id: moveIdSchema,
  service: text,
  members: z.array(
    z.object({
      workload: workloadIdSchema,
      name: text,
      sourceId: text,
      targetId: text.nullable(),
      closedPorts: z.array(z.number()).optional(),
      isUnhealthy: z.boolean().optional(),
    }),
  ),
  volumes: z.array(workloadVolumeSchema),
  services: z.array(text),
  from: nodeName,
  to: nodeName,
  cause: z.enum(['operator', 'drain']),
  limits: z.object({ prepareMs: count, copyMs: count, pauseMs: count, drainMs: count }),
  step,
  stepSinceMs: count,
  createdAtMs: count,
  pausedAtMs: count.nullable(),
  progress: z.object({ sentBytes: count, totalBytes: count.nullable(), bytesPerSecond: count }).nullable(),
  failure: z.object({ step, reason: text }).nullable(),
  abort: text.nullable(),
  history: z.array(z.object({ step, node: nodeName, startedAtMs: count, ms: count, note: text })),
  revision: count,
});

/** Parses what JSON.stringify wrote, and throws on anything else. */
export function decodeMove(value: string): MoveDoc {
  return moveSchema.parse(JSON.parse(value));
}
