import type { SpaceDoc } from './cluster.ts';
import type { NodeName } from './names.ts';
import { freeBytesFor, placementLimits } from './node-index.ts';
import { formatSize } from './quantity.ts';

/** Whether the target of a move has room for what comes. Pure. */

export type Coming = { readonly hasCopy: boolean; readonly bytes: number | null };

/** As for a copy that is placed there (`node-index.ts`), but for how full a pool may get: people may have nowhere else to go. */
const limits = { ...placementLimits, fullShareMax: 0.95 };
const fullPercent = Math.round(100 * limits.fullShareMax);
const wayOut = 'free some there ("flockctl df"), or choose another node';

/**
 * What has a copy there has its room, and its owner sends what is new whether it moves or not. What is not known is no reason against it.
 */
export function roomObstacles(to: NodeName, space: SpaceDoc | null, volumes: readonly Coming[]): readonly string[] {
  const bytes = volumes.reduce((sum, volume) => sum + (volume.hasCopy ? 0 : (volume.bytes ?? 0)), 0);
  if (space === null || bytes === 0) return [];
  const neededBytes = freeBytesFor(bytes, space.sizeBytes, limits);
  if (space.freeBytes >= neededBytes) return [];
  return [
    `${to} has no room for the ${formatSize(bytes)} that come: ${formatSize(space.freeBytes)} are free in its pool, and ${formatSize(Math.ceil(neededBytes))} are needed: ${wayOut}`,
  ];
}

/** The same where it is not known yet how much would come: a pool that may not be any fuller has room for nothing. */
export function fullObstacles(to: NodeName, space: SpaceDoc | null): readonly string[] {
  if (space === null || space.freeBytes > freeBytesFor(0, space.sizeBytes, limits)) return [];
  return [
    `${to} has no room: ${formatSize(space.freeBytes)} are free in its pool, which is more than ${fullPercent} % full: ${wayOut}`,
  ];
}
