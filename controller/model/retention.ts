import { FlockError } from './errors.ts';
import { quote, type SnapshotName } from './names.ts';
import { formatDuration, parseDuration } from './quantity.ts';
import { parseReplicationSnapshot } from './replication.ts';

/**
 * Which replication snapshots a volume keeps: up to the age `forMs`, one in each `everyMs`; 0: all of them. Ages grow from rule to
 * rule; what is older than the last is not kept. As text: `1h=all,24h=1h,7d=1d,30d=7d`.
 */
export type RetentionGrid = readonly { readonly forMs: number; readonly everyMs: number }[];

const secondMs = 1000;
const minuteMs = 60 * secondMs;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;

/** All for the last hour, hourly for a day, daily for a week, weekly for a month. */
export const defaultRetention: RetentionGrid = [
  { forMs: hourMs, everyMs: 0 },
  { forMs: dayMs, everyMs: hourMs },
  { forMs: 7 * dayMs, everyMs: dayMs },
  { forMs: 30 * dayMs, everyMs: 7 * dayMs },
];

/**
 * "All" has a limit too, because replication makes a snapshot a second and every one makes each listing of the pool longer: one in
 * 10 s for the last five minutes, then one in a minute, or in a sixtieth of the rule's time where that is longer.
 */
const fresh = { forMs: 5 * minuteMs, everyMs: 10 * secondMs };
const allEveryMsMin = minuteMs;
const allParts = 60;

const rulesMax = 8;
/** The most snapshots that a grid may keep; the newest two, held ones, and the last ones of the newest epochs come on top. */
export const keptMax = 200;
/** The newest ones are what replication starts from, whatever the grid says. */
const newestKept = 2;

type Zone = { readonly forMs: number; readonly everyMs: number };

/** The grid with "all" replaced by what it means. */
function zonesOf(grid: RetentionGrid): readonly Zone[] {
  return grid.flatMap(({ forMs, everyMs }) => {
    if (everyMs > 0) return [{ forMs, everyMs }];
    const rest = { forMs, everyMs: Math.max(allEveryMsMin, Math.ceil(forMs / allParts)) };
    return forMs <= fresh.forMs ? [{ forMs, everyMs: fresh.everyMs }] : [fresh, rest];
  });
}

/** The most snapshots that the grid keeps at a time; one more in each zone, because the periods are those of the calendar. */
export function keptAtMost(grid: RetentionGrid): number {
  let count = 0;
  let youngerMs = 0;
  for (const zone of zonesOf(grid)) {
    count += Math.ceil((zone.forMs - youngerMs) / zone.everyMs) + 1;
    youngerMs = zone.forMs;
  }
  return count;
}

/** Throws `invalid-option`. */
export function parseRetention(text: string): RetentionGrid {
  const grid = text.split(',').map((part) => {
    const [age = '', every = '', ...more] = part.trim().split('=');
    if (every === '' || more.length > 0) throw invalid(text, `${quote(part)} is not AGE=all or AGE=PERIOD`);
    const forMs = parseDuration(age);
    const everyMs = every.toLowerCase() === 'all' ? 0 : parseDuration(every);
    if (every.toLowerCase() !== 'all' && everyMs < secondMs) throw invalid(text, `a period is at least 1s, or "all"`);
    if (forMs <= everyMs) throw invalid(text, `in ${quote(part)} the age must be longer than the period`);
    return { forMs, everyMs };
  });
  if (grid.length > rulesMax) throw invalid(text, `${grid.length} rules are too many, at most ${rulesMax}`);
  for (const [index, rule] of grid.entries()) {
    const before = grid[index - 1];
    if (before !== undefined && (rule.forMs <= before.forMs || rule.everyMs < before.everyMs))
      throw invalid(text, 'ages must grow from rule to rule, and periods must not shrink');
  }
  const count = keptAtMost(grid);
  if (count > keptMax)
    throw invalid(text, `it keeps up to ${count} snapshots, at most ${keptMax}: use longer periods or shorter ages`);
  return grid;
}

/** The text that parseRetention reads. */
export function formatRetention(grid: RetentionGrid): string {
  return grid
    .map(({ forMs, everyMs }) => `${formatDuration(forMs)}=${everyMs === 0 ? 'all' : formatDuration(everyMs)}`)
    .join(',');
}

function invalid(text: string, reason: string): FlockError {
  return new FlockError(
    'invalid-option',
    `invalid retention ${quote(text)}: ${reason}. Use AGE=PERIOD rules such as ${formatRetention(defaultRetention)}`,
  );
}

export type RetainedSnapshot = { readonly name: SnapshotName; readonly held: boolean };

/**
 * Names of the snapshots to destroy, oldest first: never one that replication did not make, never a held one, never the newest two,
 * nor the last of an epoch in its first five minutes.
 *
 * In each period the oldest snapshot stays. Periods are those of the calendar (multiples of `everyMs` since 1970, UTC) and times
 * are those in the names (what a backend says of a received snapshot may be the time of receiving), so the same snapshot is chosen
 * whenever and on whichever node this runs: owner and replicas thin their copies alike without a word between them, and keep many
 * snapshots in common. Ages count from the youngest snapshot: the history of a volume that rests stays as it is, and a clock that
 * jumps meanwhile costs nothing.
 */
export function selectExpired(input: {
  readonly snapshots: readonly RetainedSnapshot[];
  readonly grid: RetentionGrid;
  readonly nowMs: number;
}): readonly SnapshotName[] {
  const ours = input.snapshots
    .flatMap((snapshot) => {
      const parsed = parseReplicationSnapshot(snapshot.name);
      return parsed === null ? [] : [{ ...snapshot, ...parsed }];
    })
    // By epoch first: the clock of a new owner may be behind that of the one before.
    .toSorted((a, b) => a.epoch - b.epoch || a.timeMs - b.timeMs);
  // A snapshot from the future says that the clock was wrong when it was made, not that the others are old.
  const referenceMs = ours.findLast(({ timeMs }) => timeMs <= input.nowMs)?.timeMs ?? input.nowMs;
  const zones = zonesOf(input.grid);
  const taken = new Set<string>();
  const expired: SnapshotName[] = [];
  for (const [index, { name, epoch, timeMs, held }] of ours.entries()) {
    const zone = zones.findIndex(({ forMs }) => referenceMs - timeMs <= forMs);
    const everyMs = zones[zone]?.everyMs;
    const period = everyMs === undefined ? null : `${zone}:${Math.floor(timeMs / everyMs)}`;
    const isFirst = period !== null && !taken.has(period);
    if (period !== null) taken.add(period);
    const isNewest = index >= ours.length - newestKept;
    // It tells of all copies with one of that epoch whether they have something of their own.
    const isLastOfEpoch = epoch !== ours[index + 1]?.epoch && referenceMs - timeMs <= fresh.forMs;
    if (!isFirst && !isNewest && !isLastOfEpoch && !held && timeMs <= input.nowMs) expired.push(name);
  }
  return expired;
}
