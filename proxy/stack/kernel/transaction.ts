import { hostTable, layoutText, mapTypes, type SetName, setTypes } from './layout.ts';
import { type Element, type HostState, noState } from './wanted.ts';

/**
 * What nft is to do, as one transaction, to get from one state to the other; an empty text: nothing. What both have is not touched.
 * Pure.
 */
export function transaction(have: HostState, want: HostState): string {
  const isSame = have.layout === want.layout;
  const from = isSame ? have : noState;
  const removed = [...from.elements].filter(([id, { value }]) => want.elements.get(id)?.value !== value);
  const added = [...want.elements].filter(([id, { value }]) => from.elements.get(id)?.value !== value);
  const newChains = [...want.chains].filter(([name]) => !from.chains.has(name));
  const oldChains = [...from.chains.keys()].filter((name) => !want.chains.has(name));
  return [
    ...(isSame ? [] : [layoutText]),
    ...newChains.flatMap(([name, rules]) => [
      `add chain ip ${hostTable} ${name}`,
      ...(rules ?? []).map((rule) => `add rule ip ${hostTable} ${name} ${rule}`),
    ]),
    ...statements('delete', removed),
    ...statements('add', added),
    ...oldChains.flatMap((name) => [`flush chain ip ${hostTable} ${name}`, `delete chain ip ${hostTable} ${name}`]),
  ].join('\n');
}

function statements(verb: 'add' | 'delete', changes: readonly (readonly [string, Element])[]): readonly string[] {
  const bySet = Map.groupBy(
    changes.map(([, element]) => element),
    ({ set }) => set,
  );
  return [...bySet].map(([set, elements]) => {
    const list = elements.map((element) => (verb === 'add' ? whole(element) : quoted(element)));
    return `${verb} element ip ${hostTable} ${set} { ${list.join(', ')} }`;
  });
}

function whole(element: Element): string {
  if (element.value === '') return quoted(element);
  return isMap(element.set) ? `${quoted(element)} : ${element.value}` : `${quoted(element)} ${element.value}`;
}

/** Names of interfaces may be words of nft's own. */
function quoted({ set, key }: Element): string {
  if (set !== 'turning') return key;
  return key
    .split(' . ')
    .map((name) => `"${name}"`)
    .join(' . ');
}

export function isMap(set: SetName): boolean {
  return set in mapTypes;
}

export function isSetName(name: string): name is SetName {
  return name in mapTypes || name in setTypes;
}
