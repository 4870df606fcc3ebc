import { readFile, readlink } from 'node:fs/promises';
import { messageOf } from '../../../controller/model/errors.ts';
import type { Commands } from '../../../plugin/exec.ts';
import { linkKey, type TableLink } from '../../model/table.ts';
import { hasNames, writeNames } from './hosts-file.ts';
import { inNetwork, type Nft } from './nft.ts';

/**
 * The part of links that is inside of containers: in their network a table that leads 127.0.0.1:PORT to the link port on the
 * bridge's address, in their /etc/hosts the name. It only depends on the link ports, so it is made once for each start of a container.
 */
export type Links = {
  /** Brings all containers to what the links say; answers what could not be done, by link key. Calls do not overlap. */
  sync(links: Iterable<TableLink>, containers: ReadonlyMap<string, LocalPlace>): Promise<ReadonlyMap<string, string>>;
};

export type LocalPlace = {
  /** Of its first process; null while it does not run. */
  readonly pid: number | null;
  /** Its /etc/hosts, as the host sees it. */
  readonly hostsPath: string | null;
};

/** Not the host's name for it: a container can be a host, too. */
export const linkTable = 'flock-link';

export function createLinks(parts: {
  readonly commands: Commands;
  readonly nft: Nft;
  readonly hostRoot: string;
}): Links {
  const { commands, nft, hostRoot } = parts;
  /** By container: its first process, and the text of what was done in that one's network. */
  const done = new Map<string, { readonly start: string; readonly text: string }>();
  /** Containers that were looked at once: what an earlier process left there is gone. */
  const seen = new Set<string>();

  async function make(client: string, place: LocalPlace | undefined, links: readonly TableLink[]): Promise<void> {
    if (place === undefined || place.pid === null) throw new Error('the container does not run');
    const { pid, hostsPath } = place;
    if (links.some(({ place: { gateway } }) => gateway.includes(':'))) throw new Error('links need an IPv4 network');
    if ((await networkOf(pid)) === (await networkOf('self')))
      throw new Error('the container is on the host’s network, whose localhost belongs to the host');
    const text = linkText(links);
    const start = await startOf(pid);
    const before = done.get(client);
    if (before?.start !== start || before.text !== text) {
      done.delete(client);
      // First the guard that is in the text.
      await nft.run(text, pid);
      await allowLocalhost(pid, true);
      done.set(client, { start, text });
    }
    if (hostsPath === null) throw new Error('Docker names no /etc/hosts of it: only localhost leads there');
    const names = links.flatMap(({ host }) => (host === null || host.startsWith('*') ? [] : [host]));
    await writeNames(`${hostRoot}${hostsPath}`, [...new Set(names)].toSorted());
  }

  /** What has source 127.0.0.1 may leave by another interface, and its answer come in there, only with this. */
  async function allowLocalhost(pid: number, isAllowed: boolean): Promise<void> {
    const path = '/proc/sys/net/ipv4/conf/all/route_localnet';
    // It is the setting of the network of who opens the file.
    const script = `require('node:fs').writeFileSync('${path}', '${Number(isAllowed)}')`;
    const [program, ...args] = inNetwork(pid, [process.execPath, '-e', script]);
    await commands.run(program, args, { timeoutMs: scriptMsMax });
  }

  async function clear(client: string, { pid, hostsPath }: LocalPlace): Promise<void> {
    const path = hostsPath === null ? null : `${hostRoot}${hostsPath}`;
    const isOurs = done.has(client) || (path !== null && (await hasNames(path)));
    const isHosts = pid !== null && (await networkOf(pid)) === (await networkOf('self'));
    if (pid !== null && isOurs && !isHosts) {
      await allowLocalhost(pid, false);
      await nft.run(removalText, pid);
    }
    // Last: as long as it says so, there may be more to remove.
    if (path !== null && isOurs) await writeNames(path, null);
    done.delete(client);
    seen.add(client);
  }

  return {
    async sync(links, containers) {
      const problems = new Map<string, string>();
      const byClient = Map.groupBy(links, ({ client }) => client);
      for (const [client, own] of byClient) {
        try {
          await make(
            client,
            containers.get(client),
            own.toSorted((a, b) => a.port - b.port),
          );
          seen.delete(client);
        } catch (error) {
          for (const link of own) problems.set(linkKey(link), `inside of the container: ${messageOf(error)}`);
        }
      }
      for (const [client, place] of containers) {
        if (byClient.has(client) || seen.has(client)) continue;
        // It goes, or it is asked again; nobody waits for it.
        await clear(client, place).catch(() => {});
      }
      for (const client of [...done.keys(), ...seen]) {
        if (containers.has(client)) continue;
        done.delete(client);
        seen.delete(client);
      }
      return problems;
    },
  };
}

const networkOf = (pid: number | 'self') => readlink(`/proc/${pid}/ns/net`);

/**
 * Names one start of a process (proc(5): the 22nd field of stat). The number of a network is no such name: the next one gets it again as
 * soon as it is gone.
 */
async function startOf(pid: number): Promise<string> {
  const stat = await readFile(`/proc/${pid}/stat`, 'latin1');
  // Behind the program's name, which may have spaces, comes the third field.
  return `${pid} ${stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]}`;
}

const scriptMsMax = 10_000;
const removalText = `add table ip ${linkTable}\ndelete table ip ${linkTable}`;

/** The container's table, in place of the one that it has. Pure. */
export function linkText(links: readonly TableLink[]): string {
  const places = new Map(links.map(({ port, place }) => [port, `${place.gateway} . ${place.port}`]));
  const elements = [...places].map(([port, place]) => `${port} : ${place}`).join(', ');
  return [
    removalText,
    `table ip ${linkTable} {`,
    `map links { type inet_service : ipv4_addr . inet_service; elements = { ${elements} }; }`,
    // Docker's own name server, 127.0.0.11, is not meant.
    'chain output { type nat hook output priority -105; ip daddr 127.0.0.1 dnat ip to tcp dport map @links; }',
    'chain postrouting { type nat hook postrouting priority srcnat - 5;',
    'oifname != "lo" ip saddr 127.0.0.0/8 ct status dnat masquerade; }',
    // The setting that this needs would show the container's localhost to its neighbours.
    'chain guard { type filter hook prerouting priority raw; iifname != "lo" ip daddr 127.0.0.0/8 drop; }',
    '}',
  ].join('\n');
}
