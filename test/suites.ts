import { guestPackages } from './openzfs/prepare.ts';
import { clusterPackages, contractPackages, dockerPackages } from './support/packages.ts';

export type Suite = {
  readonly name: string;
  /** Below the folder `test`. */
  readonly files: string;
  readonly packages: readonly string[];
  /** Needs root, mounts and Docker's programs; null: runs anywhere. */
  readonly needs: 'root' | null;
  readonly needsPlugin: boolean;
  readonly testTimeoutMs: number;
  readonly suiteTimeoutMs: number;
  /** A regular expression: what runs of it when all suites do, shortly (see support/short.ts); none: everything. */
  readonly sample?: string;
  /** In front of the command when others run as well: what mostly computes leaves the processors to what has time limits. */
  readonly beside?: readonly string[];
};

const minuteMs = 60_000;
/** For random faults, by people. */
const askedMinutes = Number(process.env['FLOCK_SOAK_MINUTES'] || 0) + Number(process.env['FLOCK_CHAOS_MINUTES'] || 0);

/** An emulated machine takes ten times as long as this one. What is left out runs on zfs-fuse in `make test`, too. */
const openzfsSample =
  'on OpenZFS (content marks|life of a replica|streams on their way) |^the zfs backend on OpenZFS|^an operator’s pool';

export const suites = {
  unit: {
    name: 'unit',
    files: 'unit/**/*.test.ts',
    packages: [],
    needs: null,
    needsPlugin: false,
    testTimeoutMs: 30_000,
    suiteTimeoutMs: 20 * minuteMs,
  },
  simulation: {
    name: 'simulation',
    files: 'simulation/**/*.test.ts',
    packages: [],
    needs: null,
    needsPlugin: false,
    testTimeoutMs: 60 * minuteMs,
    suiteTimeoutMs: 85 * minuteMs,
    beside: ['chrt', '--idle', '0'],
  },
  contract: {
    name: 'contract',
    files: 'contract/**/*.test.ts',
    packages: contractPackages,
    needs: 'root',
    needsPlugin: false,
    testTimeoutMs: minuteMs,
    suiteTimeoutMs: 30 * minuteMs,
  },
  integration: {
    name: 'integration',
    files: 'integration/**/*.test.ts',
    packages: dockerPackages,
    needs: 'root',
    needsPlugin: true,
    testTimeoutMs: 4 * minuteMs,
    suiteTimeoutMs: 40 * minuteMs,
  },
  cluster: {
    name: 'cluster',
    files: 'cluster/**/*.test.ts',
    packages: clusterPackages,
    needs: 'root',
    needsPlugin: true,
    testTimeoutMs: 4 * minuteMs,
    suiteTimeoutMs: (60 + 2 * askedMinutes) * minuteMs,
  },
  'openzfs-storage': {
    name: 'openzfs-storage',
    files: 'openzfs/storage.test.ts',
    packages: guestPackages,
    needs: 'root',
    needsPlugin: false,
    testTimeoutMs: 60 * minuteMs,
    suiteTimeoutMs: 75 * minuteMs,
    sample: openzfsSample,
    // Not idle: its commands have time limits, too, though wide ones.
    beside: ['nice', '-n', '10'],
  },
  'openzfs-plugin': {
    name: 'openzfs-plugin',
    files: 'openzfs/plugin.test.ts',
    packages: [...dockerPackages, ...guestPackages],
    needs: 'root',
    needsPlugin: true,
    testTimeoutMs: 55 * minuteMs,
    suiteTimeoutMs: 60 * minuteMs,
    sample: 'with the pool that it makes (keeps|snapshots|is killed|is disabled|leaves)',
  },
} as const satisfies Readonly<Record<string, Suite>>;

export type SuiteName = keyof typeof suites;

/**
 * What runs at the same time, each lane one suite after the other: clusters mostly wait, for times that the design sets, and leave half of two
 * processors. The output of the first lane is shown as it comes.
 */
export const lanes: readonly (readonly SuiteName[])[] = [
  ['unit', 'contract', 'integration'],
  ['cluster'],
  ['openzfs-storage'],
  ['simulation'],
];

/** After those lanes in which time counts: an emulated Docker daemon needs a whole processor. */
export const last: SuiteName = 'openzfs-plugin';
