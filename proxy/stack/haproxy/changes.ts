import type { GateLimits } from '../../gate/limits.ts';
import { commandsOf } from './commands.ts';
import { serverText } from './configuration.ts';
import type { Layout } from './layout.ts';
import { mapNames, slotOf, type Wanted } from './wanted.ts';

/** What a worker has of what can be changed while it runs. */
export type Had = {
  /** Those that its configuration has; a worker from before a reload may lack some. */
  readonly maps: ReadonlyMap<string, ReadonlyMap<string, string>>;
  readonly servers: ReadonlyMap<string, ReadonlyMap<string, { readonly isDisabled: boolean }>>;
};

/**
 * The commands that bring a worker from what it has to what is wanted, in an order in which each request in between finds a way: new
 * servers before what leads to them, pauses before anything that could lead elsewhere, old servers last. Pure.
 */
export function changesOf(had: Had, wanted: Wanted, layout: Layout, limits: GateLimits): readonly string[] {
  const adding: string[] = [];
  const removing: string[] = [];
  for (const [backend, has] of had.servers) {
    const wants = wanted.servers.get(backend);
    for (const server of wants?.values() ?? []) {
      const known = has.get(server.name);
      if (known === undefined) adding.push(commandsOf.addServer(backend, serverText(server, limits)));
      if (known === undefined || known.isDisabled) adding.push(commandsOf.enable(backend, server.name));
    }
    for (const [name, { isDisabled }] of has)
      if (!isDisabled && !wants?.has(name)) removing.push(commandsOf.disable(backend, name));
  }
  const pauses = mapChanges(mapNames.paused, had, wanted, layout);
  const routes = [...had.maps.keys()]
    .filter((name) => name !== mapNames.paused)
    .map((name) => mapChanges(name, had, wanted, layout));
  return [
    ...pauses.set,
    ...adding,
    ...routes.flatMap(({ set }) => set),
    ...routes.flatMap(({ removed }) => removed),
    ...pauses.removed,
    ...removing,
  ];
}

function mapChanges(name: string, had: Had, wanted: Wanted, layout: Layout) {
  const [has, wants] = [had.maps.get(name), wanted.maps.get(name)];
  const set: string[] = [];
  const removed: string[] = [];
  // What is not wanted at all belongs to a port that is being closed.
  if (has === undefined || wants === undefined) return { set, removed };
  const file = layout.map(name);
  for (const [key, value] of wants) {
    const known = has.get(key);
    if (known === undefined) set.push(commandsOf.addEntry(file, key, value));
    else if (known !== value) set.push(commandsOf.setEntry(file, key, value));
  }
  for (const key of has.keys()) if (!wants.has(key)) removed.push(commandsOf.removeEntry(file, key));
  return { set, removed };
}

/**
 * What a worker that is being stopped is to be told: it lets nobody touch its servers. The next requests of its clients go to the gate,
 * which knows the new ones, where they are not the same. Pure.
 */
export function toldWhileStopping(had: Had, wanted: Wanted): Wanted {
  const paused = new Map(wanted.maps.get(mapNames.paused));
  for (const [backend, has] of had.servers) {
    const wants = wanted.servers.get(backend);
    const isSame = has.size === (wants?.size ?? 0) && [...has.keys()].every((name) => wants?.has(name));
    if (!isSame) paused.set(slotOf(backend), '1');
  }
  return { ...wanted, maps: new Map([...wanted.maps, [mapNames.paused, paused]]), servers: new Map() };
}

/** What the worker has after these changes: old servers stay until they can be removed. Pure. */
export function afterChanges(had: Had, wanted: Wanted): Had {
  const maps = new Map([...had.maps].map(([name, entries]) => [name, wanted.maps.get(name) ?? entries]));
  const servers = new Map(
    [...had.servers].map(([backend, has]) => {
      const wants = wanted.servers.get(backend);
      const all = new Map([...has.keys()].map((name) => [name, { isDisabled: !wants?.has(name) }]));
      for (const name of wants?.keys() ?? []) all.set(name, { isDisabled: false });
      return [backend, all];
    }),
  );
  return { maps, servers };
}
