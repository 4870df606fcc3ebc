import type { SpaceDoc, VolumeDoc } from './cluster.ts';
import { hashText, mix } from './hash.ts';
import type { MoveLimits } from './move.ts';
import { nodeObstacles, type PlanFacts, type PlanNode, planGroup, volumeObstacles } from './move-plan.ts';
import { fullObstacles } from './move-room.ts';
import type { NodeName } from './names.ts';
import type { WorkloadDoc } from './workload.ts';

/** Where what has to leave its node goes best. Pure. */

/** Free space counts in powers of two, so that like nodes share what is drained. */
const freeStepOf = (space: SpaceDoc | null) =>
  space === null || space.freeBytes < 1 ? -1 : Math.floor(Math.log2(space.freeBytes));

export type Choice = { readonly node: NodeName } | { readonly node: null; readonly reason: string };

/**
 * The best node for a group that has to leave its own: one that has copies of all its volumes, then free space, then hashing. None whose pool
 * is full already, unless it has these copies.
 */
export function chooseTarget(asked: readonly WorkloadDoc[], limits: MoveLimits, facts: PlanFacts): Choice {
  const others = facts.nodes.filter(({ name }) => name !== asked[0]?.node);
  const plans = others.map((target) => ({
    target,
    plan: planGroup({ service: '', asked, target, limits }, facts),
  }));
  const ids = new Set(plans[0]?.plan.volumes.map(({ id }) => id));
  const docs = facts.volumes.filter(({ id }) => ids.has(id));
  return choose(
    asked[0]?.id ?? '',
    docs,
    plans.map(({ target, plan }) => ({ target, obstacles: plan.obstacles })),
  );
}

/** The best node for a volume that nothing uses. */
export function chooseVolumeTarget(volume: VolumeDoc, nodes: readonly PlanNode[]): Choice {
  const source = nodes.find(({ name }) => name === volume.owner);
  const others = nodes.filter(({ name }) => name !== volume.owner);
  const offers = others.map((target) => ({
    target,
    obstacles: [
      ...nodeObstacles(volume.owner, source, target, true),
      ...volumeObstacles(volume, volume.owner, target, [volume]),
    ],
  }));
  return choose(volume.id, [volume], offers);
}

function choose(
  seed: string,
  volumes: readonly VolumeDoc[],
  offers: readonly { readonly target: PlanNode; readonly obstacles: readonly string[] }[],
): Choice {
  const hasAll = ({ name }: PlanNode) => Number(volumes.every(({ replicas }) => replicas.includes(name)));
  const scoreOf = ({ name }: PlanNode) => mix(hashText(seed) ^ hashText(name));
  const checked = offers.map(({ target, obstacles }) => {
    const full = hasAll(target) ? [] : fullObstacles(target.name, target.space);
    return { target, obstacles: [...obstacles, ...full] };
  });
  const [best] = checked
    .filter(({ obstacles }) => obstacles.length === 0)
    .map(({ target }) => target)
    .toSorted((a, b) => hasAll(b) - hasAll(a) || freeStepOf(b.space) - freeStepOf(a.space) || scoreOf(b) - scoreOf(a));
  if (best !== undefined) return { node: best.name };
  const reasons = [...new Set(checked.flatMap(({ obstacles }) => obstacles.slice(0, 1)))];
  return { node: null, reason: reasons.slice(0, reasonsMax).join('; ') || 'there is no other node' };
}

const reasonsMax = 5;
