import { readFile, writeFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../../controller/model/errors.ts';
import type { Commands } from '../../../plugin/exec.ts';
import { createLocks } from '../../../plugin/locks.ts';
import { kernelElements } from '../../model/kernel-elements.ts';
import type { ServiceName } from '../../model/names.ts';
import { emptyTable, linkKey, type Table } from '../../model/table.ts';
import type { Layer } from '../layer.ts';
import { forgetUnanswered, isRunning, listConnections, type Place } from './connections.ts';
import { askRemoval, endConnections } from './cutting.ts';
import { acceptOurs } from './docker-rule.ts';
import { createLinks, type LocalPlace } from './links.ts';
import { giveNumbers, type Numbers } from './marks.ts';
import { createNft } from './nft.ts';
import { endedOf, numbersOf } from './read-state.ts';
import { transaction } from './transaction.ts';
import { type HostState, wantedState } from './wanted.ts';

/**
 * INVARIANTS
 * - The kernel's table is the truth: it is read at the start and after each failure, and only what differs is changed, in one
 *   transaction. Numbers of services are kept in it, too.
 * - One thing at a time works on the table (`alone`); what is in containers has its own turn, because one of them that hangs must
 *   not hold up a pause.
 * - A connection that was let in goes on: the kernel remembers by itself where it leads.
 */
export type KernelParts = {
  readonly commands: Commands;
  /** For the texts of nft's transactions. */
  readonly folder: string;
  /** The host's root, as this process sees it, such as `/proc/1/root`; empty if it is the same. */
  readonly hostRoot: string;
  /** This node's containers, by id. */
  readonly containers: () => ReadonlyMap<string, LocalPlace>;
  /** How often it is looked whether others have removed what is ours. */
  readonly checkMs?: number;
};

/** Problems that concern everything have this key; those of inner ports `inner PORT`. */
export const kernelProblem = 'kernel';

const checkMs = 5_000;
/** At most this long an apply waits for what is inside of containers. */
const linksMsMax = 2_000;
/** Docker's chains are not looked at more often. */
const dockerCheckMs = 1_000;

export function createKernelLayer(parts: KernelParts): Layer {
  const { commands, containers } = parts;
  const nft = createNft(commands, parts.folder);
  const links = createLinks({ commands, nft, hostRoot: parts.hostRoot });
  let table: Table = emptyTable;
  let have: HostState | null = null;
  let numbers: Numbers = new Map();
  let ended: ReadonlySet<number> = new Set();
  let applied: { readonly table: Table; readonly around: string } | null = null;
  let isMissing = false;
  let dockerCheckedAt = Number.NEGATIVE_INFINITY;
  let hostProblems: ReadonlyMap<string, string> = new Map();
  let linkProblems: ReadonlyMap<string, string> = new Map();
  let dockerProblem: string | null = null;
  let cutProblem: string | null = null;
  let isClosed = false;

  const locks = createLocks();
  const forEver = new AbortController().signal;
  const alone = <T>(work: () => Promise<T>) => locks.with('the kernel’s table', 'another change', forEver, work);

  async function read(): Promise<HostState | null> {
    if (have !== null) return have;
    const state = await nft.read();
    isMissing = state === null;
    if (state === null) return null;
    // Of a process that ended in the middle of it.
    if (numbers.size === 0) await nft.run(askRemoval);
    numbers = new Map([...numbersOf(state), ...numbers]);
    ended = new Set([...endedOf(state), ...ended]);
    have = state;
    return state;
  }

  /** Null `cut`: as the table says. Else this service's connections are to end, too. */
  async function bring(cut: string | null): Promise<void> {
    const local = new Set(containers().keys());
    const interfaces = interfaceNames();
    const around = JSON.stringify([interfaces, ...local]);
    if (cut === null && have !== null && applied?.table === table && applied.around === around) return;
    const from = await read();
    if (from === null) {
      hostProblems = missingProblems(table);
      return;
    }
    const cutNumber = cut === null ? undefined : numbers.get(cut);
    const nextEnded = cutNumber === undefined ? ended : new Set([...ended, cutNumber]);
    const next = giveNumbers(table.services.keys(), numbers, nextEnded);
    const { state, problems } = wantedState(table, { local, interfaces, numbers: next, ended: nextEnded });
    const text = transaction(from, state);
    if (text !== '') {
      // Not known any more until it is read again, should this fail.
      have = null;
      if (from.layout === null) await allowForwarding();
      await nft.run(text);
    }
    [have, numbers, ended, hostProblems] = [state, next, nextEnded, problems];
    // With a cut, too: it may be the first to bring a table whose own turn has failed.
    const before = applied?.table ?? emptyTable;
    try {
      await forgetPaused(before, table);
    } catch (error) {
      // The table's turn does it again. Those that are cut have new numbers by now: none of them would be found, and told, by another try.
      if (cut !== null) return;
      throw error;
    }
    applied = { table, around };
    const left = leftPlaces(before, table).flatMap(({ service, place }) => {
      const number = next.get(service);
      return number === undefined ? [] : [{ number, place }];
    });
    if (left.length > 0) void forgetLeft(left);
  }

  /** What was sent to a container before a pause but not answered comes again, as something new. */
  async function forgetPaused(before: Table, after: Table): Promise<void> {
    for (const { name, pause } of after.services.values()) {
      const number = numbers.get(name);
      if (pause === null || before.services.get(name)?.pause?.id === pause.id || number === undefined) continue;
      await forgetUnanswered(commands, number);
    }
  }

  /**
   * The same of what was sent to where nobody serves any more: it would come there for as long as it is tried, two minutes as a rule, and a
   * dead node says no. Nobody waits for this: there may be many of them, and what fails is as if it had not been tried.
   */
  function forgetLeft(left: readonly { readonly number: number; readonly place: Place }[]): Promise<void> {
    const work = async () => {
      for (const { number, place } of left) if (!isClosed) await forgetUnanswered(commands, number, place);
    };
    return locks.with('what is not answered', 'another table', forEver, work).catch(() => {});
  }

  async function checkDocker(): Promise<void> {
    if (performance.now() - dockerCheckedAt < dockerCheckMs) return;
    dockerCheckedAt = performance.now();
    try {
      await acceptOurs(commands);
      dockerProblem = null;
    } catch (error) {
      dockerProblem = `Docker's firewall may drop what routes and links lead to containers: ${messageOf(error)}`;
    }
  }

  const syncLinks = () =>
    locks.with('what is in containers', 'another change', forEver, async () => {
      linkProblems = isMissing ? new Map() : await links.sync(table.links.values(), containers());
    });

  /** Somebody may have flushed all tables, Docker may have made its own anew, a container may have a new network. */
  async function check(): Promise<void> {
    await alone(async () => {
      if (have !== null && !(await nft.isThere())) [have, applied] = [null, null];
      for (const number of ended) {
        if ((await listConnections(commands, number)).length > 0) continue;
        ended = new Set([...ended].filter((other) => other !== number));
        applied = null;
      }
      await bring(null);
      await checkDocker();
    });
    await syncLinks();
  }

  const stopped = new AbortController();
  async function checkForEver(): Promise<void> {
    while (!isClosed) {
      await sleep(parts.checkMs ?? checkMs, undefined, { signal: stopped.signal, ref: false }).catch(() => {});
      // The next apply meets the same failure, and says so.
      if (!isClosed && applied !== null) await check().catch(() => {});
    }
  }
  const checking = checkForEver();

  return {
    name: 'kernel',
    async apply(next) {
      await alone(async () => {
        table = next;
        await bring(null);
        await checkDocker();
      });
      // Goes on meanwhile. What fails is told as a problem, and tried again by the next check.
      const inside = syncLinks().catch(() => {});
      if (next.links.size > 0) await Promise.race([inside, sleep(linksMsMax, undefined, { ref: false })]);
    },
    problems() {
      const all = new Map([...hostProblems, ...linkProblems]);
      const general = [dockerProblem, cutProblem].filter((text) => text !== null);
      if (general.length > 0) all.set(kernelProblem, general.join('; '));
      return all;
    },
    inFlight: (service) => alone(async () => ({ requests: 0, tunnels: (await runningOf(service)).length })),
    async cutTunnels(service) {
      const running = await alone(async () => {
        const found = await runningOf(service);
        if (found.length > 0) await bring(service);
        return found;
      });
      // The table is free meanwhile; two at a time would undo each other's questions.
      const failures = await locks.with('endings', 'another service', forEver, () =>
        endConnections({ commands, nft }, running, endsOf(table, containers())),
      );
      const [failure] = failures;
      cutProblem =
        failure === undefined
          ? null
          : `of the last connections that were ended, some learn of it only with their next packet: ${messageOf(failure)}`;
      return running.length;
    },
    async close() {
      isClosed = true;
      stopped.abort();
      await checking;
      await alone(async () => {});
    },
  };

  async function runningOf(service: ServiceName) {
    await read();
    const number = numbers.get(service);
    return number === undefined ? [] : (await listConnections(commands, number)).filter(isRunning);
  }
}

/** Docker needs it as well and sets it, unless it was told not to; without it nothing reaches a container from outside. */
async function allowForwarding(): Promise<void> {
  const path = '/proc/sys/net/ipv4/ip_forward';
  if ((await readFile(path, 'utf8')).trim() !== '1') await writeFile(path, '1');
}

function interfaceNames(): readonly string[] {
  return Object.entries(networkInterfaces()).flatMap(([name, addresses]) =>
    name !== 'lo' && addresses?.some(({ family }) => family === 'IPv4') ? [name] : [],
  );
}

/** Where services had endpoints, and have none any more. */
function leftPlaces(before: Table, after: Table): readonly { readonly service: ServiceName; readonly place: Place }[] {
  const textOf = ({ host, port }: Place) => `${host} ${port}`;
  return [...before.services.values()].flatMap(({ name: service, endpoints }) => {
    const now = new Set([...(after.services.get(service)?.endpoints.values() ?? [])].flat().map(textOf));
    return [...endpoints.values()]
      .flat()
      .filter((one) => !one.host.includes(':') && !now.has(textOf(one)))
      .map((place) => ({ service, place }));
  });
}

function missingProblems(table: Table): ReadonlyMap<string, string> {
  const text =
    'this node has no nft, which leads it: use the image that make up builds, or install the package nftables';
  const inner = [...kernelElements(table)].filter(([, { map }]) => map === 'inner').map(([key]) => key);
  return new Map([...inner, ...[...table.links.values()].map(linkKey)].map((key) => [key, text]));
}

function endsOf(table: Table, containers: ReadonlyMap<string, LocalPlace>) {
  const links = [...table.links.values()];
  const byHost = new Map<string, string>();
  for (const { client, place } of links) byHost.set(place.client, client);
  for (const { endpoints } of table.services.values())
    for (const list of endpoints.values()) for (const { id, host } of list) byHost.set(host, id);
  for (const { id, host } of table.inner.values()) byHost.set(host, id);
  const own = Object.values(networkInterfaces()).flatMap((addresses) => addresses?.map(({ address }) => address) ?? []);
  const pidOf = (host: string) => containers.get(byHost.get(host) ?? '')?.pid ?? null;
  return { links, own: new Set(own), pidOf };
}
