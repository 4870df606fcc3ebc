import { hasCode } from '../../controller/model/errors.ts';
import type { DatasetId } from '../../controller/model/names.ts';
import type { Clock } from './ports.ts';
import { lateMsMax } from './unanswered.ts';

/** What a node does not do for a volume while it asks the store for it, nor as long as the store may still do what it did not answer. */
export type Withheld = {
  has(id: DatasetId): boolean;
  /** Until then at least (boot clock). */
  until(id: DatasetId, untilMs: number): void;
  /** While this is done; after a failure as long as it may still come about. `not-owner` says that it can't. */
  during<T>(id: DatasetId, work: () => Promise<T>): Promise<T>;
};

export function createWithheld(clock: Pick<Clock, 'bootMs'>): Withheld {
  const untilMs = new Map<DatasetId, number>();
  return {
    has: (id) => (untilMs.get(id) ?? 0) > clock.bootMs(),
    until: (id, ms) => void untilMs.set(id, Math.max(ms, untilMs.get(id) ?? 0)),
    async during(id, work) {
      // An attempt before may still come about whatever becomes of this one.
      const before = untilMs.get(id);
      untilMs.set(id, Number.POSITIVE_INFINITY);
      try {
        const done = await work();
        if (before === undefined || before === Number.POSITIVE_INFINITY) untilMs.delete(id);
        else untilMs.set(id, before);
        return done;
      } catch (error) {
        if (hasCode(error, 'not-owner')) untilMs.delete(id);
        else untilMs.set(id, clock.bootMs() + lateMsMax);
        throw error;
      }
    },
  };
}
