import type { CopyEstimateView } from '../model/api.ts';
import { decodeSpace, keys } from '../model/cluster.ts';
import { type Coming, roomObstacles } from '../model/move-room.ts';
import type { NodeName } from '../model/names.ts';
import type { Copied } from './copying.ts';
import type { MoveTools } from './ports.ts';

/** What is to be sent, and whether the target has room for it, as far as the source can tell. */

/** Those of which it is not known by when the signal fires are left out. */
export async function estimatesOf(
  { plugin }: Pick<MoveTools, 'plugin'>,
  { volumes, to }: Copied,
  signal: AbortSignal,
): Promise<readonly (CopyEstimateView & { readonly name: string })[]> {
  const estimates = volumes.map(({ name }) =>
    plugin.estimate(name, to, signal).then(
      (estimate) => [{ name, ...estimate }],
      () => [],
    ),
  );
  return (await Promise.all(estimates)).flat();
}

/** Why the target has no room. It says what is free in its pool now and then, so that this is about half a minute old. */
export async function lackOfRoom(
  { store }: Pick<MoveTools, 'store'>,
  to: NodeName,
  coming: readonly Coming[],
): Promise<readonly string[]> {
  if (coming.every(({ hasCopy }) => hasCopy)) return [];
  const entry = await store.get(keys.space(to), { fresh: true });
  return entry === null ? [] : roomObstacles(to, decodeSpace(entry.value), coming);
}
