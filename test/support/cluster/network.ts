import { spawn } from 'node:child_process';
import { readlink } from 'node:fs/promises';
import { createCommands } from '../../../plugin/exec.ts';
import type { Host } from '../host/host.ts';
import { until } from '../until.ts';
import { cuts, type NetworkFault, oneWayCuts, portOf, renderFaults } from './faults.ts';

/** Takes one fault away again; may be called twice. */
export type Undo = () => Promise<void>;

/**
 * A switch that hosts are plugged into, in a network namespace of its own, so that this machine's firewall and addresses have no
 * part in it. All of it is gone with its one process. Faults act in the switch: a host sees nothing but silence.
 */
export type Network = {
  /** A place on the switch that is no host, for clients that are to outlive all of them. No fault is between it and the hosts. */
  readonly outside: { readonly host: { readonly pid: number } };
  /** Gives a host that has just started its card and address. */
  plug(number: number, host: Host): Promise<void>;
  partition(one: readonly number[], other: readonly number[]): Promise<Undo>;
  /** What the first ones send to the others does not arrive; what those send does. */
  partitionOneWay(from: readonly number[], to: readonly number[]): Promise<Undo>;
  /** Only Consul's ports. */
  partitionConsul(one: readonly number[], other: readonly number[]): Promise<Undo>;
  /** A share of what the host sends and receives is dropped. */
  loss(number: number, percent: number): Promise<Undo>;
  /** The cable is out: the host's card has no carrier. */
  linkDown(number: number): Promise<Undo>;
  heal(): Promise<void>;
  /** Gives this process's own network namespace an address in the cluster's, so that people can reach the hosts. */
  openLeg(): Promise<void>;
  close(): Promise<void>;
};

export const legAddress = '10.77.0.253';
const outsideAddress = '10.77.0.254';

export function addressOf(number: number): string {
  return `10.77.0.${number}`;
}

export async function startNetwork(): Promise<Network> {
  const commands = createCommands();
  const holder = spawn('setpriv', ['--pdeathsig', 'KILL', 'unshare', '--net', 'sleep', 'infinity'], {
    stdio: 'ignore',
  });
  const ended = new Promise<void>((resolve) => holder.once('exit', () => resolve()));
  const pid = String(holder.pid);
  const own = await readlink('/proc/self/ns/net');
  await until('the switch has a network of its own', 5_000, async () => {
    if (holder.exitCode !== null) throw new Error(`the switch ended with status ${holder.exitCode}`);
    const space = await readlink(`/proc/${pid}/ns/net`).catch(() => own);
    return space === own ? undefined : true;
  });
  const inside = (file: string, ...args: readonly string[]) =>
    commands.run('nsenter', ['-t', pid, '-n', '--', file, ...args]);
  await inside('ip', 'link', 'add', 'br0', 'type', 'bridge');
  await inside('ip', 'link', 'set', 'br0', 'up');
  await inside('ip', 'addr', 'add', `${outsideAddress}/24`, 'dev', 'br0');

  const faults = new Set<NetworkFault>();
  const down = new Set<number>();
  let applied: Promise<unknown> = Promise.resolve();
  /** One at a time, so that the last one to ask is the last one to be heard. */
  const apply = async () => {
    const next = applied.catch(() => {}).then(() => inside('nft', renderFaults([...faults])));
    applied = next;
    await next;
  };
  const add = async (more: readonly NetworkFault[]): Promise<Undo> => {
    for (const fault of more) faults.add(fault);
    await apply();
    return async () => {
      const present = more.map((fault) => faults.delete(fault));
      if (present.includes(true)) await apply();
    };
  };
  const linkUp = async (number: number) => {
    if (!down.delete(number)) return;
    // The host, and with it the cable, may be gone.
    await inside('ip', 'link', 'set', portOf(number), 'up').catch(() => {});
  };

  return {
    outside: { host: { pid: Number(pid) } },
    async plug(number, host) {
      const port = portOf(number);
      // The kernel takes a dead host's cable away, but not at once.
      await inside('ip', 'link', 'del', port).catch(() => {});
      // The same card address after each start, or the others would send to the old one for a while.
      const card = ['peer', 'name', 'eth0', 'address', `02:77:00:00:00:0${number}`, 'netns', String(host.pid)];
      await inside('ip', 'link', 'add', port, 'type', 'veth', ...card);
      await inside('ip', 'link', 'set', port, 'master', 'br0', down.has(number) ? 'down' : 'up');
      await host.run('ip', ['addr', 'add', `${addressOf(number)}/24`, 'dev', 'eth0']);
      await host.run('ip', ['link', 'set', 'eth0', 'up']);
      // Linux's default, whatever this machine has: pacing (bbr) takes a fifth of what a veth carries on few processors.
      await host.run('sh', ['-c', 'echo cubic > /proc/sys/net/ipv4/tcp_congestion_control || true']);
    },
    partition: (one, other) => add(cuts(one, other)),
    partitionOneWay: (from, to) => add(oneWayCuts(from, to)),
    partitionConsul: (one, other) => add(cuts(one, other, 'consul')),
    loss: (host, percent) => add([{ kind: 'loss', host, percent }]),
    async linkDown(number) {
      down.add(number);
      await inside('ip', 'link', 'set', portOf(number), 'down');
      return () => linkUp(number);
    },
    async heal() {
      faults.clear();
      await apply();
      for (const number of [...down]) await linkUp(number);
    },
    async openLeg() {
      await inside('ip', 'link', 'add', 'leg', 'type', 'veth', 'peer', 'name', 'flock-leg', 'netns', `${process.pid}`);
      await inside('ip', 'link', 'set', 'leg', 'master', 'br0', 'up');
      await commands.run('ip', ['addr', 'add', `${legAddress}/24`, 'dev', 'flock-leg']);
      await commands.run('ip', ['link', 'set', 'flock-leg', 'up']);
    },
    async close() {
      holder.kill('SIGKILL');
      await ended;
    },
  };
}
