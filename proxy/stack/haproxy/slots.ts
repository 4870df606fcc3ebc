import { z } from 'zod';

/**
 * Backends that the configuration has in stock, without servers: a service gets one, and HAProxy needs no reload. Named by what
 * can't be changed while it runs: whether it speaks HTTP or bare TCP, and how it picks servers. Pure.
 */
export const slotKinds = {
  hr: { mode: 'http', balance: 'roundrobin', stockMin: 64 },
  hl: { mode: 'http', balance: 'leastconn', stockMin: 16 },
  tr: { mode: 'tcp', balance: 'roundrobin', stockMin: 16 },
  tl: { mode: 'tcp', balance: 'leastconn', stockMin: 8 },
} as const;

export type SlotKind = keyof typeof slotKinds;
export const slotKindNames: readonly SlotKind[] = ['hr', 'hl', 'tr', 'tl'];
export type Stock = Readonly<Record<SlotKind, number>>;

export type Slots = {
  /** Number of the slot by what it is for, of each kind. */
  readonly held: Readonly<Record<SlotKind, Readonly<Record<string, number>>>>;
  readonly stock: Stock;
};

export const noSlots: Slots = {
  held: { hr: {}, hl: {}, tr: {}, tl: {} },
  stock: { hr: 0, hl: 0, tr: 0, tl: 0 },
};

/**
 * Keeps what is held and wanted, gives up the rest, and gives new ones the first free slots, but none that is given up now: routes
 * may lead there for a moment yet. `isBusy`: it still has servers of whom it was for before. The stock only grows, to twice what it
 * was: each growth is a reload.
 */
export function allocateSlots(
  wanted: Readonly<Record<SlotKind, Iterable<string>>>,
  before: Slots,
  isBusy: (kind: SlotKind, index: number) => boolean,
): Slots {
  const held: Record<SlotKind, Record<string, number>> = { hr: {}, hl: {}, tr: {}, tl: {} };
  const stock: Record<SlotKind, number> = { ...before.stock };
  for (const kind of slotKindNames) {
    const used = new Set<number>();
    const rest: string[] = [];
    for (const key of new Set(wanted[kind])) {
      const index = before.held[kind][key];
      if (index === undefined || used.has(index)) rest.push(key);
      else {
        held[kind][key] = index;
        used.add(index);
      }
    }
    const left = new Set(Object.values(before.held[kind]));
    let index = 0;
    for (const key of rest) {
      while (used.has(index) || left.has(index) || isBusy(kind, index)) index += 1;
      held[kind][key] = index;
      used.add(index);
    }
    let size = Math.max(stock[kind], slotKinds[kind].stockMin);
    for (const last of used) while (size <= last) size *= 2;
    stock[kind] = size;
  }
  return { held, stock };
}

const counts = z.object({ hr: z.int(), hl: z.int(), tr: z.int(), tl: z.int() });
const held = z.record(z.string(), z.int().nonnegative());
export const slotsSchema: z.ZodType<Slots> = z.object({
  held: z.object({ hr: held, hl: held, tr: held, tl: held }),
  stock: counts,
});
