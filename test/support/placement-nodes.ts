import { parseDatasetId, parseNodeName } from '../../controller/model/names.ts';
import { type PlacementNode, prepareNodes } from '../../controller/model/node-index.ts';
import { parseOptions } from '../../controller/model/options.ts';
import { type PlacementVolume, placeReplicas } from '../../controller/model/placement.ts';

/** Nodes and volumes to place, in few words. */
export const gibi = 1024 ** 3;
export const minuteMs = 60_000;
export const nowMs = 100 * minuteMs;

type NodeChange = Partial<Omit<PlacementNode, 'name' | 'labels'>> & { readonly labels?: Record<string, string> };

export const node = (name: string, change: NodeChange = {}): PlacementNode => ({
  name: parseNodeName(name),
  address: '192.0.2.1',
  port: 1,
  labels: {},
  cordoned: false,
  draining: false,
  format: 'zfs',
  joinedAtMs: 0,
  alive: true,
  deadSinceMs: null,
  space: { sizeBytes: 1000 * gibi, freeBytes: 900 * gibi },
  ...change,
});
export const dead = (minutes: number) => ({ alive: false, deadSinceMs: nowMs - minutes * minuteMs });
/** `b`: in sync, `b?`: not. */
export const volume = (options: Record<string, string>, replicas: readonly string[] = [], usedBytes = gibi) =>
  ({
    id: parseDatasetId('db.00000001'),
    owner: parseNodeName('a'),
    options: parseOptions(options),
    usedBytes,
    replicas: replicas.map((text) => ({ node: parseNodeName(text.replace('?', '')), inSync: !text.endsWith('?') })),
  }) satisfies PlacementVolume;
export const place = (nodes: readonly PlacementNode[], of: PlacementVolume) =>
  placeReplicas({ volume: of, nodes: prepareNodes(nodes), nowMs });
export const stepsOf = (nodes: readonly PlacementNode[], of: PlacementVolume) =>
  place(nodes, of).steps.map((step) => `${step.kind} ${step.node}`);
