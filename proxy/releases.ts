import type { ServiceName } from './model/names.ts';
import type { Pause } from './model/records.ts';
import type { Table, TableService } from './model/table.ts';

/**
 * Keeps services that were just released, but that nobody serves yet, paused for a moment longer: what its new node says of a
 * container comes a moment later sometimes, and what has waited so long can wait for that, too.
 */
export type Releases = {
  /** The table with those services paused as before. */
  hold(table: Table, nowMs: number): Table;
  /** Those that it holds now. */
  held(): readonly ServiceName[];
  /** When the first of them is let go whatever is there (of `nowMs`); null: it holds none. */
  nextEndMs(): number | null;
};

export const lateMsMax = 2_000;

type Late = { readonly pause: Pause; readonly untilMs: number };

export function createReleases(): Releases {
  let paused: ReadonlyMap<ServiceName, Pause> = new Map();
  let late: ReadonlyMap<ServiceName, Late> = new Map();

  function lateNow(service: TableService, nowMs: number): readonly (readonly [ServiceName, Late])[] {
    const { name } = service;
    if (service.pause !== null || isServed(service)) return [];
    const before = late.get(name);
    const pause = before?.pause ?? paused.get(name);
    if (pause === undefined) return [];
    // One that has ended by itself was not released.
    const untilMs = before?.untilMs ?? Math.min(pause.untilMs, nowMs + lateMsMax);
    return nowMs < untilMs ? [[name, { pause: { ...pause, drain: null }, untilMs }]] : [];
  }

  return {
    hold(table, nowMs) {
      const services = [...table.services.values()];
      late = new Map(services.flatMap((service) => lateNow(service, nowMs)));
      paused = new Map(services.flatMap(({ name, pause }) => (pause === null ? [] : [[name, pause] as const])));
      if (late.size === 0) return table;
      const held = services.map((one) => ({ ...one, pause: late.get(one.name)?.pause ?? one.pause }));
      return { ...table, services: new Map(held.map((one) => [one.name, one])) };
    },
    held: () => [...late.keys()],
    nextEndMs: () => (late.size === 0 ? null : Math.min(...[...late.values()].map(({ untilMs }) => untilMs))),
  };
}

/** Wherever something leads to. Without routes and links nobody waits. */
function isServed({ endpoints }: TableService): boolean {
  return [...endpoints.values()].every((list) => list.length > 0);
}
