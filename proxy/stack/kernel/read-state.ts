import { z } from 'zod';
import { layoutChain } from './layout.ts';
import { type Numbers, numberOf, reservedNumbers } from './marks.ts';
import { isSetName } from './transaction.ts';
import { type Element, elementId, type HostState } from './wanted.ts';

const scalar = z.union([z.string(), z.number()]);
const key = z.union([scalar, z.object({ concat: z.array(scalar) })]);
const entry = z.union([
  z.tuple([key, z.object({ goto: z.object({ target: z.string() }) })]),
  z.object({ elem: z.object({ val: key, comment: z.string().optional() }) }),
  key,
]);
const list = z.object({ name: z.string(), elem: z.array(entry).default([]) });
const ruleset = z.object({
  nftables: z.array(
    z.object({ chain: z.object({ name: z.string() }).optional(), map: list.optional(), set: list.optional() }),
  ),
});

/** What `nft -j list table` says of our table. Pure. Throws a SyntaxError or ZodError for another shape. */
export function readState(text: string): HostState {
  let layout = '';
  const chains = new Map<string, null>();
  const elements = new Map<string, Element>();
  for (const { chain, map, set } of ruleset.parse(JSON.parse(text)).nftables) {
    if (chain?.name === layoutChain) layout = layoutChain;
    if (chain?.name.startsWith('to-')) chains.set(chain.name, null);
    const found = map ?? set;
    if (found === undefined || !isSetName(found.name)) continue;
    for (const one of found.elem) {
      const element = { set: found.name, ...readEntry(one) };
      elements.set(elementId(element.set, element.key), element);
    }
  }
  return { layout, chains, elements };
}

/** The numbers that a state has for services. */
export function numbersOf(state: HostState): Numbers {
  const numbers = new Map<string, number>();
  for (const { set, key, value } of state.elements.values()) {
    const name = /^comment "(.+)"$/.exec(value)?.[1];
    if (set === 'services' && name !== undefined) numbers.set(name, numberOf(Number(key)));
  }
  return numbers;
}

/** The numbers of connections that are to end. */
export function endedOf(state: HostState): ReadonlySet<number> {
  const ended = new Set<number>();
  for (const { set, key } of state.elements.values()) if (set === 'ended') ended.add(numberOf(Number(key)));
  ended.delete(reservedNumbers.ending);
  return ended;
}

function readEntry(one: z.infer<typeof entry>): Omit<Element, 'set'> {
  if (Array.isArray(one)) return { key: readKey(one[0]), value: `goto ${one[1].goto.target}` };
  if (typeof one === 'object' && 'elem' in one) {
    const { val, comment } = one.elem;
    return { key: readKey(val), value: comment === undefined ? '' : `comment "${comment}"` };
  }
  return { key: readKey(one), value: '' };
}

function readKey(value: z.infer<typeof key>): string {
  return typeof value === 'object' ? value.concat.join(' . ') : String(value);
}
