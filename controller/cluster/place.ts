import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { messageOf } from '../model/errors.ts';
import type { NodeIdentity } from '../model/identity.ts';
import { loadIdentity } from './files.ts';

/** Of a membership, what the programs beside the plugin use of it. Null: this host is in no cluster. */
export type Place = Pick<NodeIdentity, 'clusterId' | 'name' | 'address' | 'storeAddress' | 'storeToken'> | null;

export type MembershipParts = {
  /** Where the plugin keeps the host's membership. */
  readonly folder: string;
  readonly log: Logger;
  readonly pollMs?: number;
};

const pollMsDefault = 1_000;
/** It is there if and only if the host is a member. */
const markFile = 'node.json';

/**
 * Where this host is, at once and each time that changes. While the files can't be read, it stays where it was. Ends when the signal
 * fires.
 */
export async function* watchPlace(parts: MembershipParts, signal: AbortSignal): AsyncGenerator<Place> {
  const { folder, log, pollMs = pollMsDefault } = parts;
  const path = join(folder, markFile);
  let mark: string | null = null;
  let last: Place | undefined;
  let problem: string | null = null;
  while (!signal.aborted) {
    const current = await markOf(path);
    if (current !== mark) {
      try {
        const place = placeOf(await loadIdentity(folder));
        // A file that was replaced while it was read has another mark next time.
        mark = current;
        problem = null;
        if (last === undefined || !isSamePlace(last, place)) {
          last = place;
          yield place;
        }
      } catch (error) {
        const text = messageOf(error);
        if (text !== problem)
          log.error({ event: 'membership.unreadable', reason: text }, 'the host stays where it was');
        problem = text;
      }
    }
    await sleep(pollMs, undefined, { signal }).catch(() => {});
  }
}

export function isSamePlace(one: Place, other: Place): boolean {
  if (one === null || other === null) return one === other;
  return placeKeys.every((key) => one[key] === other[key]);
}

const placeKeys = ['clusterId', 'name', 'address', 'storeAddress', 'storeToken'] as const;

function placeOf(identity: NodeIdentity | null): Place {
  if (identity === null) return null;
  const { clusterId, name, address, storeAddress, storeToken } = identity;
  return { clusterId, name, address, storeAddress, storeToken };
}

/** Never the same for two versions of the file; the files are renamed into their place. */
async function markOf(path: string): Promise<string> {
  try {
    const { ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
    return [ino, size, mtimeNs, ctimeNs].join(' ');
  } catch (error) {
    return error instanceof Error && 'code' in error ? `none ${error.code}` : 'none';
  }
}
