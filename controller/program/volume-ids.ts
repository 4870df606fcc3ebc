import { z } from 'zod';
import { volumeView } from '../model/api.ts';
import { type DatasetId, isDatasetId, type VolumeName } from '../model/names.ts';
import { askSocket } from '../socket-request.ts';
import type { Seen } from './view.ts';

/** The ids of volumes, by the names that containers know them by. */
export type VolumeIds = (names: readonly VolumeName[], seen: Seen) => Promise<ReadonlyMap<string, DatasetId>>;

/** In a cluster the store says it. */
export const idsInCluster: VolumeIds = async (_names, { volumes }) =>
  new Map([...volumes.values()].filter(({ trashed }) => trashed === null).map(({ name, id }) => [name, id]));

const askMsMax = 10_000;

/**
 * Alone, the plugin of this host: it is asked when there is a name that it was not asked for before. While it is away, what it has said last
 * stays: containers, also those without volumes, are looked after all the same.
 */
export function createIdsAlone(pluginSocket: string, askMs = askMsMax): VolumeIds {
  let known: ReadonlyMap<string, DatasetId> = new Map();
  let restUntilMs = Number.NEGATIVE_INFINITY;
  return async (names) => {
    if (names.every((name) => known.has(name)) || performance.now() < restUntilMs) return known;
    const signal = AbortSignal.timeout(askMs);
    const question = { socketPath: pluginSocket, method: 'GET', path: '/v1/volumes', body: undefined, signal };
    const { status, text } = await askSocket(question).catch(() => ({ status: 0, text: '' }));
    // It hangs: all containers of one look are asked for one after the other, and would each wait as long.
    if (signal.aborted) restUntilMs = performance.now() + askMs;
    if (status !== 200) return known;
    const views = z.array(volumeView).parse(JSON.parse(text));
    known = new Map(views.flatMap(({ name, id }) => (isDatasetId(id) ? [[name, id] as const] : [])));
    return known;
  };
}
