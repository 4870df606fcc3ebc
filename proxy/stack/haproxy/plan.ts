import { createHash } from 'node:crypto';
import { matchHost } from '../../model/match.ts';
import { type Endpoint, type Listener, type Table, type Target, targetsOf } from '../../model/table.ts';
import { allocateSlots, type SlotKind, type Slots, slotKindNames } from './slots.ts';
import { backendNames, mapNames, nowhere, type Pem, type Server, type TlsPort, type Wanted } from './wanted.ts';

export type PlanFacts = {
  readonly table: Table;
  readonly slots: Slots;
  /** The slot still has servers of whom it was for before. */
  readonly isBusy: (kind: SlotKind, index: number) => boolean;
  /** Those that are there and fine. */
  readonly certificates: ReadonlyMap<string, Pem>;
  /** Keys of listeners whose port another program has. */
  readonly blocked: ReadonlySet<string>;
};

export type Plan = { readonly wanted: Wanted; readonly slots: Slots };

/** From the table to what HAProxy is to have. Pure. */
export function makePlan({ table, slots: before, isBusy, certificates, blocked }: PlanFacts): Plan {
  const listeners = [...table.listeners.values()].filter((one) => one.kind !== 'tcp' && !blocked.has(one.key));
  const targets = new Map<string, Target>();
  for (const listener of listeners)
    for (const target of targetsOf(listener)) targets.set(`${kindOf(table, target)} ${slotKey(target)}`, target);
  const keys: Record<SlotKind, string[]> = { hr: [], hl: [], tr: [], tl: [] };
  for (const target of targets.values()) keys[kindOf(table, target)].push(slotKey(target));
  const slots = allocateSlots(keys, before, isBusy);
  const slotOf = (target: Target): string => {
    const kind = kindOf(table, target);
    const index = slots.held[kind][slotKey(target)];
    return index === undefined ? nowhere : backendNames.slot(kind, index);
  };

  const maps = new Map<string, ReadonlyMap<string, string>>();
  const tls: TlsPort[] = [];
  for (const listener of listeners) {
    if (listener.kind === 'tcp') continue;
    const requests = mapNames.requests(listener.kind === 'http' ? 'http' : 'https', listener.port);
    const { exact, below } = requestMaps(listener, slotOf);
    maps.set(requests.exact, exact).set(requests.below, below);
    if (listener.kind !== 'tls') continue;
    const names = nameMaps(listener, slotOf, certificates);
    maps.set(mapNames.names(listener.port).exact, names.exact).set(mapNames.names(listener.port).below, names.below);
    const used = new Set([...targetsOf(listener)].flatMap((target) => certificateOf(target) ?? []));
    tls.push({ port: listener.port, certificates: [...used].filter((name) => certificates.has(name)).sort() });
  }

  const servers = new Map<string, ReadonlyMap<string, Server>>();
  const paused = new Map<string, string>();
  for (const target of targets.values()) {
    const slot = slotOf(target);
    const service = table.services.get(target.service);
    if (service !== undefined && service.pause !== null) paused.set(slot, '1');
    const list = (service?.endpoints.get(target.port) ?? []).map((endpoint) => serverOf(endpoint, target));
    const byName = new Map(list.map((server) => [server.name, server]));
    servers.set(slot, byName);
    if (!isTcp(target)) servers.set(backendNames.upgrades(slot), byName);
  }
  maps.set(mapNames.paused, paused);
  const http = listeners.filter(({ kind }) => kind === 'http').map(({ port }) => port);
  return { slots, wanted: { structure: { http, tls, certificates, stock: slots.stock }, maps, servers } };
}

/** Whose each slot is now. */
export function ownersOf({ held }: Slots): ReadonlyMap<string, string> {
  const owners = new Map<string, string>();
  for (const kind of slotKindNames)
    for (const [key, index] of Object.entries(held[kind]))
      owners.set(backendNames.slot(kind, index), key.slice(0, key.indexOf(' ')));
  return owners;
}

function certificateOf({ mode }: Target): string | null {
  return typeof mode === 'string' ? null : mode.certificate;
}

function isTcp({ mode }: Target): boolean {
  return mode === 'tls' || mode === 'tcp';
}

function kindOf(table: Table, target: Target): SlotKind {
  const isLeast = table.services.get(target.service)?.balance === 'least-connections';
  if (isTcp(target)) return isLeast ? 'tl' : 'tr';
  return isLeast ? 'hl' : 'hr';
}

function slotKey({ service, port, proxyProtocol }: Target): string {
  return `${service} ${port}${proxyProtocol ? ' proxy' : ''}`;
}

/** The name tells one endpoint from another, so a server is never changed: HAProxy's old one may still have requests. */
function serverOf({ id, host, port }: Endpoint, { proxyProtocol }: Target): Server {
  const digest = createHash('sha256').update(`${id} ${host} ${port} ${proxyProtocol}`).digest('hex').slice(0, 16);
  const readable = id.replaceAll(/[^A-Za-z0-9_-]/g, '').slice(0, 24);
  return { name: `${readable}.${digest}`, host, port, proxyProtocol };
}

type HttpOrTls = Exclude<Listener, { readonly kind: 'tcp' }>;

/** `host/path/` to the slot: with a slash at the end a prefix of the text is one of whole segments. */
function requestMaps({ hosts }: HttpOrTls, slotOf: (target: Target) => string) {
  const exact = new Map<string, string>();
  const below = new Map<string, string>();
  const add = (map: Map<string, string>, host: string, targets: ReadonlyMap<string, Target>) => {
    for (const [path, target] of targets)
      map.set(`${host}${path === '/' ? '' : path}/`, target.mode === 'tls' ? nowhere : slotOf(target));
  };
  // IPv6 addresses have many spellings; requests for them go to the gate.
  for (const [host, { targets }] of hosts.exact) if (!host.includes(':')) add(exact, host, targets);
  for (const [name, { targets }] of hosts.below) add(below, name, targets);
  if (hosts.any !== null) add(exact, '*', hosts.any.targets);
  return { exact, below };
}

/** All routes of a host are of one kind, so that of `/` tells it; those of a host that has only others, by any. */
function nameMaps(listener: HttpOrTls, slotOf: (target: Target) => string, certificates: ReadonlyMap<string, Pem>) {
  const backendOf = (target: Target): string => {
    const certificate = certificateOf(target);
    if (certificate === null) return slotOf(target);
    return certificates.has(certificate) ? backendNames.ended(listener.port, certificate) : nowhere;
  };
  const { hosts } = listener;
  const exact = new Map<string, string>();
  const below = new Map<string, string>();
  for (const [host, { targets }] of hosts.exact) {
    const [first] = targets.values();
    const target = matchHost(hosts, host, '/') ?? first;
    if (target !== undefined && !host.includes(':')) exact.set(host, backendOf(target));
  }
  for (const [name, { targets }] of hosts.below) {
    const target = targets.get('/');
    if (target !== undefined) below.set(name, backendOf(target));
  }
  const any = hosts.any?.targets.get('/');
  if (any !== undefined) exact.set('*', backendOf(any));
  return { exact, below };
}
