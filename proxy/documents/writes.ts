import { type NodeName, parseNodeName } from '../../controller/model/names.ts';
import { type Entry, type Operation, storeLimits } from '../../controller/store/store.ts';
import { proxyKeys } from '../model/keys.ts';

/** Which writes bring a node's own documents to what they should be. Pure. */

/** What a node's proxy has in the store, or should have there, by key. */
export type Written = ReadonlyMap<string, Pick<Entry, 'value' | 'index'>>;
export type Wanted = ReadonlyMap<string, string>;

/** Transactions in the order to do them; none where nothing differs. Each is guarded: who else has written makes it a conflict. */
export function planWrites(written: Written, wanted: Wanted): readonly (readonly Operation[])[] {
  const sets = [...wanted].flatMap(([key, value]): readonly Operation[] => {
    const before = written.get(key);
    if (before?.value === value || !fits(value)) return [];
    return [{ kind: 'compare-and-set', key, value, index: before?.index ?? null }];
  });
  const gone = [...written].flatMap(([key, { index }]): readonly Operation[] =>
    wanted.has(key) ? [] : [{ kind: 'compare-and-delete', key, index }],
  );
  return inTransactions([...sets, ...gone]);
}

/** Documents that no store takes. */
export function tooLarge(wanted: Wanted): readonly string[] {
  return [...wanted].filter(([, value]) => !fits(value)).map(([key]) => key);
}

/** As few transactions as the store's limits allow. */
export function inTransactions(operations: readonly Operation[]): readonly (readonly Operation[])[] {
  const transactions: Operation[][] = [];
  let count = 0;
  let bytes = 0;
  for (const operation of operations) {
    const cost = operation.kind === 'compare-and-delete' ? 2 : 1;
    const size = Buffer.byteLength(operation.key) + ('value' in operation ? Buffer.byteLength(operation.value) : 0);
    const isFull = count + cost > storeLimits.operationsMax || bytes + size > storeLimits.transactionBytesMax;
    const last = transactions.at(-1);
    if (last === undefined || isFull) {
      transactions.push([operation]);
      [count, bytes] = [cost, size];
    } else {
      last.push(operation);
      [count, bytes] = [count + cost, bytes + size];
    }
  }
  return transactions;
}

/** Nodes that have left their proxy's documents behind, except those that are here still. */
export function strangers(written: readonly Entry[], isHere: (node: NodeName) => boolean): readonly NodeName[] {
  const nodes = written.map(({ key }) => nodeOfKey(key, proxyKeys.containers) ?? nodeOfKey(key, proxyKeys.nodes));
  return [...new Set(nodes.filter((node) => node !== null))].filter((node) => !isHere(node));
}

/** The node whose name comes next after `below` in a key; null: none does. */
export function nodeOfKey(key: string, below: string): NodeName | null {
  if (!key.startsWith(`${below}/`)) return null;
  try {
    return parseNodeName(key.slice(below.length + 1).split('/')[0] ?? '');
  } catch {
    return null;
  }
}

function fits(value: string): boolean {
  return Buffer.byteLength(value) <= storeLimits.valueBytesMax;
}
