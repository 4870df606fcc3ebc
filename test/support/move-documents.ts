import type { VolumeDoc } from '../../controller/model/cluster.ts';
import {
  advance,
  type MoveDoc,
  moveIdSchema,
  moveLimitsDefault,
  type StepOutcome,
} from '../../controller/model/move.ts';
import type { PlanFacts, PlanNode } from '../../controller/model/move-plan.ts';
import { parseDatasetId, parseNodeName, parseVolumeName } from '../../controller/model/names.ts';
import { parseOptions } from '../../controller/model/options.ts';
import { type ContainerSpec, type WorkloadDoc, workloadIdFor } from '../../controller/model/workload.ts';
import { gibi, node } from './placement-nodes.ts';

/** Documents of moves, workloads and volumes, in few words. */
export const containerId = (name: string) => Buffer.from(name.padEnd(32, '.')).toString('hex').slice(0, 64);

export const spec = (change: Partial<ContainerSpec> = {}): ContainerSpec => ({
  image: 'web:1',
  imageId: 'sha256:1',
  create: {},
  networks: {},
  networksNeeded: {},
  ports: [80],
  stopSeconds: 10,
  ...change,
});

type WorkloadChange = Partial<Omit<WorkloadDoc, 'node' | 'volumes' | 'spec'>> & {
  readonly spec?: Partial<ContainerSpec>;
  /** Names of volumes. */
  readonly volumes?: readonly string[];
};

let age = 0;
export function workload(name: string, on: string, change: WorkloadChange = {}): WorkloadDoc {
  age += 1;
  const { volumes = [], spec: specChange, ...rest } = change;
  return {
    id: workloadIdFor(containerId(`${name}-${on}`)),
    name,
    service: name,
    createdAtMs: age,
    node: parseNodeName(on),
    epoch: 1,
    containerId: containerId(`${name}-${on}`),
    wanted: 'running',
    failover: 'auto',
    spec: spec(specChange),
    volumes: volumes.map((volume) => ({ id: datasetId(volume), name: parseVolumeName(volume) })),
    after: [],
    obstacles: [],
    former: [],
    move: null,
    revision: 1,
    ...rest,
  };
}

export const datasetId = (volume: string) => parseDatasetId(`${volume}.00000001`);

type VolumeChange = Partial<Omit<VolumeDoc, 'owner' | 'replicas' | 'options'>> & {
  readonly replicas?: readonly string[];
  readonly options?: Readonly<Record<string, string>>;
};

export function volumeDoc(name: string, owner: string, change: VolumeChange = {}): VolumeDoc {
  const { replicas = [], options = {}, ...rest } = change;
  return {
    id: datasetId(name),
    name: parseVolumeName(name),
    createdAtMs: 1,
    options: parseOptions(options),
    owner: parseNodeName(owner),
    epoch: 1,
    replicas: replicas.map(parseNodeName),
    revision: 1,
    trashed: null,
    ...rest,
  };
}

export const planNode: (name: string, change?: Partial<PlanNode>) => PlanNode = (name, change = {}) => ({
  ...node(name),
  controller: true,
  space: { sizeBytes: 1000 * gibi, freeBytes: 600 * gibi },
  ...change,
});

/** Three nodes; a service `web` with volume `data` on n1, copied to n2. */
export const facts = (change: Partial<PlanFacts> = {}): PlanFacts => ({
  workloads: [workload('web', 'n1', { volumes: ['data'] })],
  volumes: [volumeDoc('data', 'n1', { replicas: ['n2'] })],
  nodes: ['n1', 'n2', 'n3'].map((name) => planNode(name)),
  routed: new Set(['web']),
  ...change,
});

export function moveDoc(change: Partial<MoveDoc> = {}): MoveDoc {
  const web = workload('web', 'n1');
  return {
    id: moveIdSchema.parse('0000abcd'),
    service: 'web',
    members: [{ workload: web.id, name: 'web', sourceId: containerId('web-n1'), targetId: null }],
    volumes: [{ id: datasetId('data'), name: parseVolumeName('data') }],
    services: ['web'],
    from: parseNodeName('n1'),
    to: parseNodeName('n2'),
    cause: 'operator',
    limits: moveLimitsDefault,
    step: 'preparing',
    stepSinceMs: 1_000,
    createdAtMs: 1_000,
    pausedAtMs: null,
    progress: null,
    failure: null,
    abort: null,
    history: [],
    revision: 1,
    ...change,
  };
}

export const done = (note = 'done'): StepOutcome => ({ kind: 'done', note });
export const failed = (reason = 'broken'): StepOutcome => ({ kind: 'failed', reason });
export const lost = (reason = 'dead'): StepOutcome => ({ kind: 'lost', reason });

/** The record after these outcomes. */
export const advanced = (doc: MoveDoc, ...outcomes: readonly StepOutcome[]): MoveDoc =>
  outcomes.reduce((current, outcome, index) => advance(current, outcome, current.stepSinceMs + 100 * (index + 1)), doc);
