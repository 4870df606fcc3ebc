import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';
import { z } from 'zod';
import {
  type CopyView,
  copyView,
  type FailoverView,
  failoverView,
  type StashView,
  stashView,
  volumeView,
} from '../model/api.ts';
import { formatAge, formatDuration, formatSize } from '../model/quantity.ts';
import { anything, CliError, path } from './client.ts';
import type { Session } from './main.ts';
import { type Column, formatTable } from './output.ts';
import { sizeOr } from './volume-commands.ts';

const copyColumns: readonly Column<CopyView>[] = [
  { title: 'VOLUME', value: (copy) => copy.volume },
  { title: 'OWNER', value: (copy) => copy.owner },
  { title: 'COPY ON', value: (copy) => copy.node },
  { title: 'STATE', value: (copy) => copy.state },
  { title: 'LAG', value: ({ lagMs }) => (lagMs === null ? '-' : `${(lagMs / 1000).toFixed(1)}s`), right: true },
  { title: 'TO GO', value: toGo, right: true },
  { title: 'SNAPSHOT', value: (copy) => copy.snapshot ?? '-' },
  { title: 'PROBLEM', value: (copy) => copy.problem ?? '' },
];

function toGo({ state, sentBytes, totalBytes }: CopyView): string {
  if (state !== 'sending') return '-';
  return totalBytes === null ? `${formatSize(sentBytes)} sent` : formatSize(Math.max(0, totalBytes - sentBytes));
}

const stashColumns: readonly Column<StashView>[] = [
  { title: 'ID', value: (stash) => stash.id },
  { title: 'VOLUME', value: (stash) => stash.volume },
  { title: 'NODE', value: (stash) => stash.node },
  { title: 'EPOCH', value: (stash) => String(stash.epoch), right: true },
  { title: 'SINCE SNAPSHOT', value: (stash) => stash.common ?? '(nothing in common)' },
  { title: 'DATA', value: (stash) => sizeOr(stash.totalBytes, '-'), right: true },
  { title: 'AGE', value: (stash) => formatAge(Date.now() - stash.stashedAtMs), right: true },
  { title: 'DESTROYED IN', value: (stash) => formatAge(stash.expiresAtMs - Date.now()), right: true },
];

const candidateColumns: readonly Column<FailoverView['copies'][number]>[] = [
  { title: 'COPY ON', value: (copy) => copy.node },
  { title: 'STATE', value: (copy) => (copy.state === 'none' ? 'not arrived' : copy.state) },
  { title: 'SNAPSHOT', value: (copy) => copy.snapshot ?? '-' },
  { title: 'AGE', value: ({ takenAtMs: at }) => (at === null ? '-' : formatAge(Date.now() - at)), right: true },
  { title: 'MAY MISS', value: ({ lossMs }) => (lossMs === null ? '-' : secondsOf(lossMs)), right: true },
];

const secondsOf = (ms: number) => `${Math.ceil(ms / 100) / 10}s`;

/** Pure. */
export function describeFailover(view: FailoverView): string {
  const { volume, owner, isOwnerAlive, isHeld, waitMs, policy, maxLossMs, copies, best, reason } = view;
  const owned = isHeld ? 'holds it' : isOwnerAlive ? 'lives, but does not hold it' : 'is dead';
  const limit = maxLossMs === null ? '' : `, max-loss=${formatDuration(maxLossMs)}`;
  const lines = [
    `${volume}: its owner ${owner} ${owned}; failover=${policy}${limit}`,
    ...(copies.length === 0 ? ['no node has a copy'] : [formatTable(copies, candidateColumns).trimEnd()]),
    ...(best === null ? [] : [`best copy: ${best}`]),
    ...(waitMs === null || waitMs === 0 ? [] : [`${owner} may still write to it for ${secondsOf(waitMs)}`]),
    `not taken over by itself: ${reason}`,
  ];
  return lines.join('\n');
}

function lossOf(lossMs: number | null): string {
  return lossMs === null
    ? 'How much of the last writes is missing is not known.'
    : `At most the last ${secondsOf(lossMs)} before its owner was seen gone are missing.`;
}

/** The end of the input is no answer, and neither is Ctrl-C. */
async function ask(question: string): Promise<string> {
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  const closed = new Promise<string>((resolve) => lines.once('close', () => resolve('')));
  try {
    return await Promise.race([lines.question(question).catch(() => ''), closed]);
  } finally {
    lines.close();
  }
}

/** Throws unless a person says yes. */
async function confirm(view: FailoverView, target: string | null): Promise<void> {
  const answer = await ask(
    `${describeFailover(view)}\nGive ${view.volume} to ${target ?? 'a node with a copy'}? [y/N] `,
  );
  if (!/^y(es)?$/i.test(answer.trim())) throw new CliError('nothing was done');
}

export function addReplicationCommands(program: Command, session: () => Session): void {
  program
    .command('replica')
    .description('copies of volumes on other nodes')
    .command('ls')
    .description('list the copies: how far each is behind, and why')
    .action(async () => {
      const { client, print } = session();
      const copies = await client.get('/v1/copies', z.array(copyView));
      print(copies, () => formatTable(copies, copyColumns));
    });

  const stash = program
    .command('stash')
    .description('writes that did not survive a change of owner, until their time is up');
  stash
    .command('ls')
    .description('list them')
    .action(async () => {
      const { client, print } = session();
      const stashes = await client.get('/v1/stashes', z.array(stashView));
      print(stashes, () => formatTable(stashes, stashColumns));
    });
  stash
    .command('restore')
    .description('make one a volume of its own')
    .argument('<id>', 'as "stash ls" shows it')
    .argument('<new-name>')
    .action(async (id: string, name: string) => {
      const { client, print } = session();
      const restored = await client.send('POST', path`/v1/stashes/${id}/restore`, { name }, volumeView);
      print(restored, () => `${restored.name}\n`);
    });
  stash
    .command('rm')
    .description('destroy one for good')
    .argument('<id>')
    .action(async (id: string) => {
      const { client, print } = session();
      await client.send('DELETE', path`/v1/stashes/${id}`, undefined, anything);
      print({ removed: id }, () => `${id}\n`);
    });

  program
    .command('failover')
    .description('give a volume whose owner is dead to a node that has a copy')
    .argument('<volume>')
    .argument('[node]', 'default: the one with the best copy')
    .option('--force', 'also where another living node has a newer copy, and with failover=none')
    .option('--yes', 'do not ask; needed where there is no terminal')
    .action(
      async (volume: string, node: string | undefined, options: { readonly force?: true; readonly yes?: true }) => {
        const { client, print, note } = session();
        const before = await client.get(path`/v1/volumes/${volume}/failover`, failoverView);
        const target = node ?? before.best;
        const canAsk = process.stdin.isTTY && process.stderr.isTTY;
        if (options.yes !== true && canAsk) await confirm(before, target);
        else note(describeFailover(before));
        if (options.yes !== true && !canAsk)
          throw new CliError('nothing was done, for there is nobody to ask: --yes has it done without');
        const body = { node: target, force: options.force === true };
        const taken = await client.send('POST', path`/v1/volumes/${volume}/failover`, body, volumeView);
        const lossMs = before.copies.find((copy) => copy.node === taken.owner)?.lossMs ?? null;
        print({ ...taken, lossMs }, () => `${taken.name} is now node ${taken.owner}'s. ${lossOf(lossMs)}\n`);
      },
    );
}
