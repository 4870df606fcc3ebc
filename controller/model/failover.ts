import type { VolumeDoc } from './cluster.ts';
import { type Copy, completeUntilMs, newestOf } from './copy-order.ts';
import { hashText, mix } from './hash.ts';
import type { NodeName } from './names.ts';
import { placementLimits } from './node-index.ts';
import type { FailoverPolicy, VolumeOptions } from './options.ts';
import { formatDuration } from './quantity.ts';

/**
 * Whether a node that has a copy of a volume may make it the volume, now that its owner is dead (docs/design.md, "Failover"). Pure: the
 * node looks again and again, and does what this says. Races are decided by the store.
 */
export type FailoverInput = {
  /** `operator`: a person asks for it, and has seen what would be lost. */
  readonly cause: 'automatic' | 'operator';
  /** Of an operator: also where another copy is newer, and against `failover=none`. */
  readonly force: boolean;
  readonly me: NodeName;
  readonly doc: Pick<VolumeDoc, 'id' | 'name' | 'owner' | 'replicas' | 'options'>;
  readonly guardMs: number;
  /** Boot clock of this node, as all times here. */
  readonly nowMs: number;
  /** Since when this node has seen the volume unlocked; null: somebody holds it. */
  readonly freeSinceMs: number | null;
  /** Until when this node has promised the owner not to take it. */
  readonly promisedUntilMs: number;
  /** Until when the last automatic takeover of this volume forbids another. */
  readonly calmUntilMs: number;
  /** All of the cluster. `deadSinceMs`: when this node first saw it dead; null: it lives. `isPoolLost`: it has said that its pool has failed. */
  readonly nodes: readonly {
    readonly name: NodeName;
    readonly deadSinceMs: number | null;
    readonly isPoolLost?: boolean;
  }[];
  readonly mine: Copy;
  /** What the other listed nodes have, as far as they were asked. */
  readonly others: ReadonlyMap<NodeName, Copy | 'silent'>;
};

/** What a decision rests on: for programs, and to tell one reason from another. */
export type FailoverRule =
  | 'locked'
  | 'owner-lives'
  | 'policy'
  | 'guard'
  | 'promise'
  | 'calm'
  | 'brake'
  | 'no-copy'
  | 'silent'
  | 'newer'
  | 'turn'
  | 'max-loss';

export type FailoverDecision =
  /** It is nobody's business: the owner lives, or it is not to be taken at all. */
  | { readonly kind: 'none'; readonly rule: FailoverRule; readonly reason: string }
  /** These nodes have to be asked what they have. */
  | { readonly kind: 'ask'; readonly nodes: readonly NodeName[] }
  /** `untilMs` null: until something changes. */
  | {
      readonly kind: 'wait';
      readonly rule: FailoverRule;
      readonly reason: string;
      readonly untilMs: number | null;
      readonly node?: NodeName;
    }
  /** Not by itself, or not at all: worth being told to people. `isFirst`: of the nodes that come to this one should say it. */
  | { readonly kind: 'refuse'; readonly rule: FailoverRule; readonly reason: string; readonly isFirst: boolean }
  /** `lossMs`: writes of so long may be missing; null: not known. */
  | { readonly kind: 'take'; readonly lossMs: number | null };

/** A node that lives and does not answer may have a newer copy: it is waited for so long after the guard. */
export const silentMsMax = 30_000;
/** Between two automatic takeovers of one volume. */
export const calmMs = 60_000;
/** One of several equal copies comes after the other, in case the one before it can't. */
export const turnMs = 2_000;

export function policyOf({ failover }: Pick<VolumeOptions, 'failover'>): FailoverPolicy {
  return failover ?? 'auto';
}

export function decideFailover(input: FailoverInput): FailoverDecision {
  return beforeAsking(input) ?? byCopies(input);
}

/** What needs nobody else's answer; null: nothing stands against it so far. */
function beforeAsking(input: FailoverInput): FailoverDecision | null {
  const { cause, force, doc, guardMs, nowMs, freeSinceMs, promisedUntilMs, nodes } = input;
  const isAutomatic = cause === 'automatic';
  const policy = policyOf(doc.options);
  if (freeSinceMs === null) return none('locked', `node ${doc.owner} still holds the volume, or did so a moment ago`);
  if (policy === 'none' && !force)
    return isAutomatic
      ? none('policy', 'the volume has failover=none')
      : { kind: 'refuse', rule: 'policy', reason: 'the volume has failover=none', isFirst: true };
  // Its session is over as well: one that is just locking its volumes anew has another.
  const owner = nodes.find(({ name }) => name === doc.owner);
  if (isAutomatic && owner?.deadSinceMs === null && owner.isPoolLost !== true)
    return none('owner-lives', `node ${doc.owner} lives`);
  const guardedUntilMs = freeSinceMs + guardMs;
  if (guardedUntilMs > nowMs) return wait('guard', `node ${doc.owner} may still write to the volume`, guardedUntilMs);
  const standing = isAutomatic ? beforeTakingByItself(input) : null;
  if (standing !== null) return standing;
  if (promisedUntilMs > nowMs)
    return wait(
      'promise',
      `node ${doc.owner} may still write to the volume, as this node has promised`,
      promisedUntilMs,
    );
  return null;
}

function beforeTakingByItself({ me, doc, nowMs, calmUntilMs, nodes }: FailoverInput): FailoverDecision | null {
  const isPoolLost = nodes.find(({ name }) => name === doc.owner)?.isPoolLost === true;
  if (calmUntilMs > nowMs && !isPoolLost)
    return wait('calm', 'it was taken over by itself less than a minute ago', calmUntilMs);
  const dead = nodes.filter(({ deadSinceMs }) => deadSinceMs !== null);
  if (isBraked(dead.length, nodes.length)) {
    const others = doc.replicas.filter((node) => node !== me && dead.every(({ name }) => name !== node));
    return {
      kind: 'refuse',
      rule: 'brake',
      reason: `${dead.length} of ${nodes.length} nodes look dead, more than a third: that is rather the network`,
      isFirst: rankOf(doc.id, me, others) === 0,
    };
  }
  return null;
}

/** A single dead node is no mass outage, however few there are: the store has a majority, or nothing could be taken. */
export function isBraked(dead: number, total: number): boolean {
  return dead > 1 && dead / total > placementLimits.deadShareMax;
}

function byCopies(input: FailoverInput): FailoverDecision {
  const { cause, force, me, doc, guardMs, nowMs, mine, others, nodes } = input;
  const freeSinceMs = input.freeSinceMs ?? nowMs;
  if ((mine.snapshots ?? []).length === 0 && cause === 'automatic')
    return none('no-copy', 'the first copy has not arrived on this node yet');
  const unasked: NodeName[] = [];
  const own = { node: me, ...mine };
  const copies = [own];
  for (const name of force ? [] : doc.replicas) {
    const node = nodes.find((one) => one.name === name);
    // What is on a pool that has failed is no better for being newer.
    if (name === me || node === undefined || node.isPoolLost === true) continue;
    if (node.deadSinceMs !== null) {
      // It may be starting anew in this moment.
      if (node.deadSinceMs + guardMs > nowMs)
        return wait('silent', `node ${name} has a copy too and has just gone away`, node.deadSinceMs + guardMs, name);
      continue;
    }
    const copy = others.get(name);
    if (copy === undefined) unasked.push(name);
    else if (copy !== 'silent') copies.push({ node: name, ...copy });
    else if (freeSinceMs + guardMs + silentMsMax > nowMs)
      return wait(
        'silent',
        `node ${name} has a copy too and does not answer, so it may be newer than the one here`,
        freeSinceMs + guardMs + silentMsMax,
        name,
      );
  }
  if (unasked.length > 0) return { kind: 'ask', nodes: unasked };
  const { copies: newest, reached } = newestOf(copies);
  const [first] = newest;
  if (first !== undefined && !newest.includes(own))
    return wait('newer', `node ${first.node} has a newer copy`, null, first.node);
  // Its session may have ended before it did: one that has begun another wrote on, and has said that its copies have everything.
  const goneSinceMs = Math.max(freeSinceMs, nodes.find(({ name }) => name === doc.owner)?.deadSinceMs ?? freeSinceMs);
  const stoodAtMs = Math.max(freeSinceMs + guardMs, input.promisedUntilMs);
  const owner = { goneSinceMs, stoodAtMs, promisedUntilMs: input.promisedUntilMs };
  const lossMs = lossOf(owner, completeUntilMs(own, copies));
  if (cause === 'operator') return { kind: 'take', lossMs };
  const rank = rankOf(
    doc.id,
    me,
    newest.map(({ node }) => node).filter((node) => node !== me),
  );
  const turnAtMs = freeSinceMs + guardMs + rank * turnMs;
  // It may be years old, and the owner back in a minute.
  if (reached === null)
    return {
      kind: 'refuse',
      rule: 'no-copy',
      reason: 'the first copy has not arrived completely, and nobody knows how old that is which has',
      isFirst: rank === 0,
    };
  if (turnAtMs > nowMs) return wait('turn', 'another node has the same copy, and its turn is first', turnAtMs);
  if (policyOf(doc.options) === 'manual')
    return { kind: 'refuse', rule: 'policy', reason: 'the volume has failover=manual', isFirst: rank === 0 };
  const limitMs = doc.options.maxLossMs;
  if (limitMs !== null && (lossMs === null || lossMs > limitMs))
    return {
      kind: 'refuse',
      rule: 'max-loss',
      reason: `${lossMs === null ? 'nobody knows how much' : `up to ${formatDuration(roundUp(lossMs))}`} of the last writes may be missing, and max-loss is ${formatDuration(limitMs)}`,
      isFirst: rank === 0,
    };
  return { kind: 'take', lossMs };
}

/** From when the copy had everything to when the owner was seen gone: it may have written until then. */
function lossOf(
  owner: { readonly goneSinceMs: number; readonly stoodAtMs: number; readonly promisedUntilMs: number },
  asOfMs: number | null,
): number | null {
  const { goneSinceMs, stoodAtMs, promisedUntilMs } = owner;
  if (asOfMs === null) return null;
  // Then it may have written until it had to stand.
  const livedOn = asOfMs > goneSinceMs || promisedUntilMs > goneSinceMs;
  return Math.max(0, (livedOn ? stoodAtMs : goneSinceMs) - asOfMs);
}

/** Rendezvous hashing: of nodes with equal copies another is the first for each volume. */
export function rankOf(id: string, me: NodeName, others: readonly NodeName[]): number {
  const weight = (node: NodeName) => mix(hashText(id) ^ hashText(node));
  const own = weight(me);
  return others.filter((node) => weight(node) > own || (weight(node) === own && node < me)).length;
}

function roundUp(ms: number): number {
  return ms < 1_000 ? Math.ceil(ms) : Math.ceil(ms / 1_000) * 1_000;
}

function none(rule: FailoverRule, reason: string): FailoverDecision {
  return { kind: 'none', rule, reason };
}

function wait(rule: FailoverRule, reason: string, untilMs: number | null, node?: NodeName): FailoverDecision {
  return { kind: 'wait', rule, reason, untilMs, ...(node === undefined ? {} : { node }) };
}
