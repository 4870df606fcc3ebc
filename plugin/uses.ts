import { z } from 'zod';

/**
 * Who uses a mounted volume, as far as Docker has told us. Docker's mount ids are neither a set nor a counter: `docker cp` mounts
 * with the id that is mounted already (so ids are counted), and a daemon that was killed mounts again with the same persisted id
 * and never sends the missing unmount (so an old count may mean nothing). Only the kernel can tell the two apart. Pure.
 */
export type Use = {
  readonly mountId: string;
  readonly count: number;
  /** Boot time: the wall clock may be set between Docker's Mount and the container's start. */
  readonly sinceMs: number;
};

const usesSchema = z.array(z.object({ mountId: z.string(), count: z.int().positive(), sinceMs: z.number() }));

/** Text that can't be read counts as none: what is mounted is known from the kernel, and the sweep drops what nobody backs up. */
export function decodeUses(text: string, nowMs: number): readonly Use[] {
  try {
    return usesUntil(usesSchema.parse(JSON.parse(text)), nowMs);
  } catch {
    return [];
  }
}

/**
 * `held`: whether any container or host process has the volume mounted now; matters only for an id that is known (see `isKnown`).
 * `ms`: boot time.
 */
export function acquire(
  uses: readonly Use[],
  mountId: string,
  now: { readonly held: boolean; readonly ms: number },
): readonly Use[] {
  const known = uses.find((use) => use.mountId === mountId);
  // Nobody holds it, so the container of the old count is gone: its daemon was killed.
  const count = known !== undefined && now.held ? known.count + 1 : 1;
  return [...uses.filter((use) => use !== known), { mountId, count, sinceMs: now.ms }];
}

/** What seems to be later than now (boot time) was written by a version that went by the wall clock. */
export function usesUntil(uses: readonly Use[], nowMs: number): readonly Use[] {
  return uses.map((use) => ({ ...use, sinceMs: Math.min(use.sinceMs, nowMs) }));
}

export function isKnown(uses: readonly Use[], mountId: string): boolean {
  return uses.some((use) => use.mountId === mountId);
}

/** An unknown id is no error: Docker may repeat itself after we had rolled a mount back. */
export function release(uses: readonly Use[], mountId: string): readonly Use[] {
  return uses.flatMap((use) => {
    if (use.mountId !== mountId) return [use];
    return use.count > 1 ? [{ ...use, count: use.count - 1 }] : [];
  });
}

/**
 * For uses that no container or host process backs up with a mount: what is left of them. A container appears in the kernel's mount
 * tables only some time after Docker's Mount, so young ones are given the benefit of the doubt. `atMs`: boot time from before the
 * mount tables were read, for a container may have started since.
 */
export function withoutLeaks(uses: readonly Use[], atMs: number): readonly Use[] {
  return uses.filter((use) => atMs - use.sinceMs < useGraceMs);
}

/** Far above the time from Docker's Mount call to the container's first process, also on a host that swaps. */
export const useGraceMs = 10 * 60 * 1000;
