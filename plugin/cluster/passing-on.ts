import { keys, type Reached, type VolumeDoc } from '../../controller/model/cluster.ts';
import { FlockError } from '../../controller/model/errors.ts';
import { type DatasetId, type NodeName, quote } from '../../controller/model/names.ts';
import { ownedBy } from '../../controller/model/ownership.ts';
import type { Operation, Outcome, SessionId } from '../../controller/store/store.ts';
import type { SeenVolume } from './directory.ts';
import type { OwnVolumes } from './own-volumes.ts';
import type { Clock } from './ports.ts';
import type { Changes } from './unanswered.ts';

export type Handover = {
  readonly ids: readonly DatasetId[];
  /** What `to` begins with, in the order of `ids`; null: not known. */
  readonly reached: readonly (Reached | null)[];
  readonly to: NodeName;
  /** Of `to`. */
  readonly session: SessionId;
  /** Changes of other documents in the same transaction. */
  readonly also: readonly Operation[];
  /** After this boot time it is too late to ask the store: `volume-busy`. */
  readonly untilMs: number;
};

/** Any number of volumes in one transaction: the target has all of them with all other changes, or nothing has happened. */
export function createHandOver(parts: {
  readonly clock: Clock;
  readonly changes: Changes;
  readonly own: OwnVolumes['own'];
}): (handover: Handover) => Promise<readonly VolumeDoc[]> {
  const { clock, changes, own } = parts;
  return async ({ ids, reached, to, session, also, untilMs }) => {
    const volumes = await Promise.all(ids.map(own));
    if (clock.bootMs() > untilMs)
      throw new FlockError('volume-busy', `${namesOf(volumes)} could not be handed to ${to} in time; try again`);
    const docs = volumes.map(({ doc }, index) => ownedBy(doc, to, reached[index] ?? null));
    const operations = [
      ...also,
      ...volumes.flatMap((volume, index): readonly Operation[] => {
        const key = keys.volume(volume.doc.id);
        const value = JSON.stringify(docs[index]);
        return [
          { kind: 'check-index', key, index: volume.index },
          { kind: 'unlock', key, value, session: volume.session },
          { kind: 'lock', key, value, session },
        ];
      }),
    ];
    const outcome = await changes.transact(docs, operations);
    if (outcome.kind === 'done') return docs;
    throw refused(outcome, operations, `${namesOf(volumes)} to ${to}`, also.length);
  };
}

function namesOf(volumes: readonly SeenVolume[]): string {
  const names = volumes.map(({ doc }) => quote(doc.name)).join(', ');
  return `${volumes.length === 1 ? 'volume' : 'the volumes'} ${names}`;
}

function refused(
  { operation, reason }: Extract<Outcome, { kind: 'conflict' }>,
  operations: readonly Operation[],
  what: string,
  others: number,
): FlockError {
  const found = operations[operation];
  const facts = { key: found?.key };
  const text = `the store refused to hand ${what}`;
  if (operation < others)
    return new FlockError('document-changed', `${text}: ${found?.key} was changed meanwhile (${reason})`, facts);
  if (found?.kind === 'lock')
    return new FlockError('node-unreachable', `${text}: that node's session has ended (${reason})`, facts);
  return new FlockError('not-owner', `${text}: ${reason}`, facts);
}
