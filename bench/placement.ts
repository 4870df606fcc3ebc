import { parseDatasetId, parseNodeName } from '../controller/model/names.ts';
import { type PlacementNode, prepareNodes } from '../controller/model/node-index.ts';
import { noOptions } from '../controller/model/options.ts';
import { type PlacementVolume, placeReplicas } from '../controller/model/placement.ts';

/**
 * How long one process takes to decide where the copies of 100,000 volumes belong on 1,000 nodes (4 data centers of 25 racks):
 * `placement.ts [VOLUMES [NODES]]`. First all at once, two local copies and a remote one each; then again when all are in place.
 */
const [volumeCount = 100_000, nodeCount = 1000] = process.argv.slice(2).map(Number);
const targetMs = 2000;
const gibi = 1024 ** 3;

const nodes = Array.from({ length: nodeCount }, (_, index): PlacementNode => {
  const dc = index % 4;
  return {
    name: parseNodeName(`host-${index}`),
    address: '192.0.2.1',
    port: 1,
    labels: { dc: `dc${dc}`, rack: `r${Math.floor(index / 4) % 25}` },
    cordoned: false,
    draining: false,
    format: 'zfs',
    joinedAtMs: 0,
    alive: true,
    deadSinceMs: null,
    space: { sizeBytes: (1 + (index % 3)) * 1000 * gibi, freeBytes: (1 + (index % 3)) * 700 * gibi },
  };
});
const volumes = Array.from({ length: volumeCount }, (_, index): PlacementVolume => {
  const owner = nodes[index % nodeCount]?.name ?? parseNodeName('none');
  const id = parseDatasetId(`volume-${index}.${index.toString(16).padStart(8, '0')}`);
  return { id, owner, options: { ...noOptions, replicas: 2, remoteReplicas: 1 }, usedBytes: gibi, replicas: [] };
});

function measure(what: string, all: readonly PlacementVolume[]) {
  const startMs = performance.now();
  const index = prepareNodes(nodes);
  const placements = all.map((volume) => placeReplicas({ volume, nodes: index, nowMs: 0 }));
  const ms = performance.now() - startMs;
  const copies = placements.reduce((sum, { replicas }) => sum + replicas.length, 0);
  const steps = placements.reduce((sum, placement) => sum + placement.steps.length, 0);
  console.log(
    `${what}: ${volumeCount} volumes, ${nodeCount} nodes, ${copies} copies, ${steps} steps: ${ms.toFixed(0)} ms (target ${targetMs} ms: ${ms < targetMs ? 'met' : 'missed'})`,
  );
  if (ms >= targetMs) process.exitCode = 1;
  return placements;
}

const first = measure('first placement', volumes);
const placed = volumes.map((volume, index): PlacementVolume => {
  const replicas = (first[index]?.replicas ?? []).map((node) => ({ node, inSync: true }));
  return { ...volume, replicas };
});
measure('steady state', placed);
