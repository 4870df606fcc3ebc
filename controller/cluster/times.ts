import { FlockError, messageOf } from '../model/errors.ts';
import { checkTiming, type Profile, timings } from '../model/timing.ts';
import type { Store } from '../store/store.ts';

/**
 * Refuses a profile whose times are not safe, or that this store does not allow, before anything depends on it. Throws
 * `invalid-option`, `store-unavailable`.
 */
export async function requireTimes(store: Store, profile: Profile): Promise<void> {
  const problems = checkTiming(profile);
  if (problems.length > 0)
    throw new FlockError(
      'invalid-option',
      `profile ${profile} can't keep two nodes from writing: ${problems.join('; ')}`,
    );
  const { sessionTtlMs } = timings[profile];
  try {
    const session = await store.createSession({ name: 'flock-trial', ttlMs: sessionTtlMs, lockDelayMs: 0 });
    await store.destroySession(session);
  } catch (error) {
    if (error instanceof FlockError && error.code === 'store-unavailable') throw error;
    throw new FlockError(
      'invalid-option',
      `profile ${profile} needs sessions of ${sessionTtlMs / 1000} s, which Consul refuses (${messageOf(error)}): set session_ttl_min = "${sessionTtlMs / 1000}s" on every Consul server, or use --profile default`,
      {},
      { cause: error },
    );
  }
}
