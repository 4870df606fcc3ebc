import type { Simulation } from './seeds.ts';

/**
 * Faults put into the code on purpose, to see that the simulation finds them, and by the check that is there for them. Each replaces
 * texts of a file, which must be there: whoever changes that place adapts this too.
 */
export type Mutation = {
  readonly name: string;
  /** Left out: of the plugins. */
  readonly of?: Simulation;
  readonly file: string;
  readonly changes: readonly { readonly from: string; readonly to: string }[];
  readonly withoutWatchdog?: boolean;
  /** The rules of checks.ts and quiet.ts that are broken then; a run that fails by another does not count. */
  readonly rules: readonly string[];
  /** At most so many seeds are needed to find it. */
  /** The first seed that is tried, where those before are known not to find it; left out: 1. */
  readonly from?: number;
  readonly seedsMax: number;
};

export const mutations: readonly Mutation[] = [
  {
    name: 'nobody waits for the guard time',
    file: 'controller/model/failover.ts',
    changes: [{ from: 'const guardedUntilMs = freeSinceMs + guardMs;', to: 'const guardedUntilMs = freeSinceMs;' }],
    rules: ['I1'],
    seedsMax: 500,
  },
  {
    name: 'nobody is fenced',
    file: 'plugin/cluster/fence.ts',
    changes: [{ from: 'await users.freeze(due).catch((error: unknown) => tellFault(error));', to: '' }],
    withoutWatchdog: true,
    rules: ['I2'],
    seedsMax: 100,
  },
  {
    name: 'there is no watchdog',
    file: 'plugin/cluster/fence.ts',
    changes: [],
    withoutWatchdog: true,
    rules: ['I2'],
    seedsMax: 100,
  },
  {
    name: 'the watchdog is not told before a mount',
    file: 'plugin/cluster/fence.ts',
    changes: [{ from: 'expected.set(id, clock.bootMs() + expectedMs);\n      await tell();', to: '' }],
    rules: ['I2'],
    seedsMax: 1_000,
  },
  {
    name: 'a node whose pool has failed keeps its volumes',
    file: 'plugin/cluster/retreat.ts',
    changes: [{ from: 'if (isLost && isMarked() && mayBeTaken(id) && canBeTaken(id))', to: 'if (false)' }],
    rules: ['F6'],
    seedsMax: 300,
  },
  {
    name: 'a copy takes streams of any epoch',
    file: 'plugin/cluster/copies.ts',
    changes: [
      { from: 'if (record !== null && record.epoch > epoch) throw stale(record, epoch);', to: '' },
      { from: 'volume === null || volume.doc.owner !== peer || volume.doc.epoch !== epoch', to: 'volume === null' },
    ],
    rules: ['epochs only grow'],
    seedsMax: 500,
  },
  {
    name: 'a regular round begins beside what is being sent',
    file: 'plugin/cluster/sending.ts',
    changes: [
      { from: ' || target.sending !== null) return;', to: ') return;' },
      { from: 'if (target.sending !== null) throw', to: 'if (false) throw' },
    ],
    rules: ['one stream to a copy'],
    seedsMax: 300,
  },
  {
    name: 'one promise is as good as all',
    file: 'plugin/cluster/promises.ts',
    changes: [{ from: 'holders.every(', to: 'holders.some(' }],
    rules: ['I1', 'I2'],
    seedsMax: 500,
  },
  {
    name: 'a promise is forgotten',
    file: 'plugin/cluster/promises.ts',
    changes: [{ from: 'for (const id of ids) given.set(id, untilMs);', to: '' }],
    rules: ['I1'],
    seedsMax: 1_000,
  },
  {
    name: 'the answer to a later change is taken for the one that did not come',
    file: 'plugin/cluster/unanswered.ts',
    changes: [{ from: 'settle(doc.id, (other) => other === doc);', to: 'settle(doc.id, () => true);' }],
    rules: ['I1', 'I2'],
    from: 6_481,
    seedsMax: 4_000,
  },
  {
    name: 'what diverged is not stashed',
    file: 'plugin/cluster/stashing.ts',
    changes: [
      {
        from: 'await storage.rollback(id, common, aside.id, options).catch(async (error: unknown) => {',
        to: 'await storage.rollback(id, common, aside.id, options).then(() => storage.destroy(aside.id)).catch(async (error: unknown) => {',
      },
    ],
    rules: ['I4'],
    seedsMax: 500,
  },
  {
    name: 'what the owner has not got counts as covered',
    file: 'controller/model/replication.ts',
    changes: [
      { from: 'return made !== null && made.timeMs < (coveredMs.get(made.epoch) ?? 0);', to: 'return made !== null;' },
    ],
    rules: ['I4'],
    seedsMax: 500,
  },
  {
    name: 'a new owner is said to have more than it began with',
    file: 'controller/model/ownership.ts',
    changes: [
      {
        from: '[{ ...reached, began: epoch }]',
        to: '[{ ...reached, timeMs: reached.timeMs + 60_000, began: epoch }]',
      },
    ],
    rules: ['I4'],
    seedsMax: 500,
  },
  {
    name: 'a volume is handed over while it is used',
    file: 'plugin/cluster/handing.ts',
    changes: [{ from: 'await Promise.all(records.map(parts.refuseInUse));', to: '' }],
    rules: ['I1', 'I3'],
    seedsMax: 500,
  },
  {
    name: 'the last difference is not sent before a volume is handed over',
    file: 'plugin/cluster/handing.ts',
    changes: [
      { from: 'await allOf(volumes, signal, (volume, ended) => replicator.sync(volume, to, true, ended));', to: '' },
    ],
    rules: ['I4'],
    seedsMax: 500,
  },
  {
    name: 'volumes of a group are handed over one after the other',
    file: 'plugin/cluster/passing-on.ts',
    changes: [
      {
        from: 'const outcome = await changes.transact(docs, operations);',
        to: `const ofDocuments = operations.slice(0, also.length);
    let outcome = await changes.transact(docs.slice(0, 1), operations.slice(also.length, also.length + 3));
    for (let at = 1; at < docs.length && outcome.kind === 'done'; at += 1)
      outcome = await changes.transact(docs.slice(at, at + 1), operations.slice(also.length + 3 * at, also.length + 3 * at + 3));
    if (outcome.kind === 'done' && also.length > 0) outcome = await changes.transact([], ofDocuments);`,
      },
    ],
    rules: ['M3'],
    seedsMax: 100,
  },
  {
    name: 'a handover without an answer is taken for none',
    file: 'plugin/cluster/handing.ts',
    changes: [{ from: "if (!hasCode(error, 'store-unavailable')) state.commit", to: 'state.commit' }],
    rules: ['I1', 'I3', 'I4', 'M3'],
    seedsMax: 6_000,
  },
  {
    name: 'volumes are taken by themselves against their options',
    file: 'controller/model/failover.ts',
    changes: [{ from: "if (policyOf(doc.options) === 'manual')", to: 'if (nowMs < 0)' }],
    rules: ['F1'],
    seedsMax: 500,
  },
  {
    name: 'volumes are taken by themselves however many nodes look dead',
    file: 'controller/model/failover.ts',
    changes: [{ from: 'if (isBraked(dead.length, nodes.length)) {', to: 'if (nowMs < 0) {' }],
    rules: ['F2'],
    seedsMax: 500,
  },
  {
    name: 'volumes are taken by themselves again and again',
    file: 'controller/model/failover.ts',
    changes: [{ from: 'if (calmUntilMs > nowMs && !isPoolLost)', to: 'if (nowMs < 0)' }],
    rules: ['F3'],
    seedsMax: 500,
  },
  {
    name: 'nobody looks at what would be lost',
    file: 'controller/model/failover.ts',
    changes: [{ from: 'if (limitMs !== null && (', to: 'if (limitMs !== null && nowMs < 0 && (' }],
    rules: ['F1', 'F4'],
    seedsMax: 500,
  },
  {
    name: 'a copy passes for complete while it is not',
    file: 'plugin/cluster/replication-work.ts',
    changes: [
      {
        from: 'return target.complete;',
        to: 'const at = target.copy?.snapshots?.at(-1)?.identity; return at === undefined ? target.complete : { identity: at, atMs: now };',
      },
    ],
    rules: ['F4'],
    from: 3_601,
    seedsMax: 2_000,
  },
  {
    name: 'owners never say up to when their copies have everything',
    file: 'plugin/cluster/as-of.ts',
    changes: [{ from: 'news: news.slice(from, from + newsMax)', to: 'news: []' }],
    rules: ['F6'],
    from: 701,
    seedsMax: 4_000,
  },
  {
    name: 'any copy is taken, however old',
    file: 'controller/model/failover.ts',
    changes: [
      {
        from: 'if (first !== undefined && !newest.includes(own))',
        to: 'if (first === undefined)',
      },
    ],
    rules: ['F5'],
    from: 251,
    seedsMax: 1_000,
  },
  {
    name: 'what is promised to an owner that stands still keeps others from its volumes',
    file: 'plugin/cluster/doubts.ts',
    changes: [{ from: 'now - sinceMs >= guardMs)', to: 'now < 0)' }],
    rules: ['F6'],
    from: 251,
    seedsMax: 1_000,
  },
  {
    name: 'nobody takes what has no owner',
    file: 'plugin/cluster/failover.ts',
    changes: [{ from: 'if (session !== null ||', to: 'if (session === null ||' }],
    rules: ['F6'],
    seedsMax: 200,
  },
  {
    name: 'a restarted plugin knows nothing of its session',
    file: 'plugin/cluster/lease.ts',
    changes: [{ from: 'memory.save(made);', to: '' }],
    rules: ['sessions are remembered'],
    seedsMax: 500,
  },
  {
    name: 'that a move had stopped a container is forgotten with the controller',
    of: 'controllers',
    file: 'controller/moves/records.ts',
    changes: [{ from: 'hasStoppedInVain(move) ? { stoppedByFlockAtMs: move.stepSinceMs } : {}', to: '{}' }],
    rules: ['M6'],
    seedsMax: 2_000,
  },
  {
    name: 'a move is committed though its target has gone',
    of: 'controllers',
    file: 'controller/moves/handover.ts',
    changes: [{ from: 'putMove(moved, current.index), ', to: '' }],
    rules: ['moves succeed', 'moves end', 'M1', 'M3'],
    seedsMax: 500,
  },
  {
    name: 'what was made for a move that failed is left',
    of: 'controllers',
    file: 'controller/program/documents.ts',
    changes: [{ from: 'node !== me && move === null && isThere', to: 'node === me && isThere' }],
    rules: ['put away'],
    seedsMax: 1_000,
  },
  {
    name: 'nobody says that a node is lost for a move',
    of: 'controllers',
    file: 'controller/model/move-duty.ts',
    changes: [{ from: 'if (gone === null) return', to: 'if (gone !== undefined) return' }],
    rules: ['moves end', 'moves succeed', 'M1', 'failover'],
    seedsMax: 1_000,
  },
  {
    name: 'a pause is left where a move ends',
    of: 'controllers',
    file: 'controller/moves/pausing.ts',
    changes: [{ from: 'await proxy.release(service, releaseMs, signal);', to: '' }],
    rules: ['M5'],
    seedsMax: 1_000,
  },
  {
    name: 'a workload follows its first volume, whoever shares it',
    of: 'controllers',
    file: 'controller/model/following.ts',
    changes: [{ from: 'ahead?.node ?? makerOf(volume, doc, facts)', to: 'makerOf(volume, doc, facts)' }],
    rules: ['M1', 'failover'],
    seedsMax: 1_000,
  },
  {
    name: 'two nodes take apart what shares volumes',
    of: 'controllers',
    file: 'controller/program/documents.ts',
    changes: [{ from: 'const checks = others.map(', to: 'const checks = others.slice(0, 0).map(' }],
    rules: ['M1', 'failover'],
    from: 1_401,
    seedsMax: 1_000,
  },
];

/** Whether a run's failure is one of these rules. */
export function breaks(failure: string, rules: readonly string[]): boolean {
  return rules.some((rule) => failure.startsWith(`Error: ${rule}: `));
}
