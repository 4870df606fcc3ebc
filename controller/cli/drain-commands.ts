import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { z } from 'zod';
import { stashView } from '../model/api.ts';
import { type DrainNodeView, drainNodeView } from '../model/controller-api.ts';
import { messageOf } from '../model/errors.ts';
import { formatDuration, parseDuration } from '../model/quantity.ts';
import { CliError, path } from './client.ts';
import { insist, interruptedStatus, onInterrupt } from './following.ts';
import type { Session } from './main.ts';

const lookMs = 1_000;

const drainHelp = `
Its containers are moved, its other volumes handed over, the copies that it holds are made elsewhere; it gets nothing new until
"flockctl node undrain". Stopped containers stay, without their volumes. Ctrl-C ends the watching, not the drain.`;

/** `node`: the command that these are added to. */
export function addDrainCommands(node: Command, session: () => Session): void {
  node
    .command('drain')
    .description('move everything off a node, so that it can be rebooted or removed')
    .argument('<name>')
    .option('--detach', 'begin it and do not wait')
    .option('--timeout <duration>', 'watch no longer than that; the drain goes on')
    .addHelpText('after', drainHelp)
    .action(async (name: string, { detach, timeout }: { readonly detach?: true; readonly timeout?: string }) => {
      const asked = session();
      const limitMs = timeout === undefined ? null : parseDuration(timeout);
      const begun = await asked.controller.send('POST', path`/v1/nodes/${name}/drain`, {}, drainNodeView);
      if (detach === true) {
        asked.print(begun, () => formatDrain(begun));
        return;
      }
      const seen = await follow(asked, name, limitMs);
      const ended = { ...seen, stays: [...seen.stays, ...(await stashesOn(asked, name))] };
      asked.print(ended, () => formatDrained(ended));
    });

  node
    .command('undrain')
    .description(
      'have a node used again, or stop draining it; what has left it stays where it is, what has not turns back',
    )
    .argument('<name>')
    .action(async (name: string) => {
      const { controller, print } = session();
      const ended = await controller.send('POST', path`/v1/nodes/${name}/undrain`, {}, drainNodeView);
      const isLeft = ended.containers.some(({ state }) => state.startsWith('moving'));
      const rest = isLeft ? ' What had not left it yet turns back: "flockctl moves ls".' : '';
      const start = ended.cordoned
        ? `${name} is drained no more, but cordoned still: "flockctl node uncordon ${name}" has it used again.`
        : `${name} is in use again.`;
      print(ended, () => `${start}${rest}\n`);
    });
}

/** Tells each change until nothing is left. Throws if somebody else ends the drain, and when the time is over. */
async function follow(
  { controller, say, note }: Session,
  name: string,
  limitMs: number | null,
): Promise<DrainNodeView> {
  const startedMs = performance.now();
  const stop = onInterrupt(async () => {
    note(`${name} is drained all the same; "flockctl node undrain ${name}" ends that`);
    process.exit(interruptedStatus);
  });
  try {
    let told: readonly string[] = [];
    let changedMs = performance.now();
    for (;;) {
      const seen = await insist(() => controller.get(path`/v1/nodes/${name}/drain`, drainNodeView));
      if (!seen.draining) throw new CliError(`${name} is not drained any more: somebody has ended it`, 'move-refused');
      const lines = linesOf(seen);
      const news = lines.filter((line) => !told.includes(line));
      for (const line of news) say(`${line}\n`);
      if (news.length > 0 || lines.length < told.length) changedMs = performance.now();
      told = lines;
      if (seen.done) return seen;
      if (isStuck(seen) && performance.now() - changedMs > stuckMs)
        throw new CliError(
          `what is left can't leave ${name}: ${seen.problems.join('; ')}. It is drained all the same; "flockctl node undrain ${name}" ends that`,
          'move-refused',
        );
      if (limitMs !== null && performance.now() - startedMs > limitMs)
        throw new CliError(
          `${name} is not empty after ${formatDuration(limitMs)}: ${lines.join('; ')}. It is drained all the same; "flockctl node undrain ${name}" ends that`,
          'deadline-exceeded',
        );
      await sleep(lookMs);
    }
  } finally {
    stop();
  }
}

/** What a node keeps of writes that did not survive a change of owner. Only it knows of them. */
async function stashesOn({ client }: Session, name: string): Promise<readonly string[]> {
  try {
    const stashes = await client.get('/v1/stashes', z.array(stashView));
    return stashes.filter(({ node }) => node === name).map(({ id, volume }) => `stash ${id} of ${volume}`);
  } catch (error) {
    return [`stashes, which could not be asked for: ${messageOf(error)}`];
  }
}

/** Pure. */
export function formatDrained({ node, stays }: DrainNodeView): string {
  const used = `"flockctl node undrain ${node}" has it used again.\n`;
  if (stays.length === 0) return `${node} is drained: it may be rebooted or removed. ${used}`;
  const shown = stays.slice(0, staysShown).map((what) => `  ${what}\n`);
  const more = stays.length > staysShown ? `  and ${stays.length - staysShown} more\n` : '';
  return `${node} is drained: it may be rebooted. ${used}Before "flockctl node rm", or it is gone with the host:\n${shown.join('')}${more}`;
}

const staysShown = 20;

/** So long nothing has changed, and nothing is on its way. */
const stuckMs = 30_000;

/** Whether people have to do something before anything else can leave. Pure. */
export function isStuck({ containers, volumes, copies, problems }: DrainNodeView): boolean {
  const isLeaving = (state: string) => !/^(blocked|stopped|goes with)/.test(state);
  const all = [...containers, ...volumes];
  if (all.some(({ state }) => isLeaving(state))) return false;
  const haveCopiesNoPlace = problems.some((problem) => problem.startsWith('the copies of'));
  return copies.length > 0 ? haveCopiesNoPlace : all.some(({ state }) => state.startsWith('blocked'));
}

function linesOf({ containers, volumes, copies, problems, stays }: DrainNodeView): readonly string[] {
  return [
    ...containers.map(({ name, state }) => `container ${name}: ${state}`),
    ...volumes.map(({ name, state }) => `volume ${name}: ${state}`),
    ...(copies.length === 0 ? [] : [`copies to be made elsewhere: ${copies.join(', ')}`]),
    ...problems.map((problem) => `! ${problem}`),
    ...stays.filter((what) => !what.startsWith('container ')).map((what) => `stays: ${what}`),
  ];
}

/** Pure. */
export function formatDrain(view: DrainNodeView): string {
  const { node, draining, done } = view;
  const start = draining ? (done ? 'is drained' : 'is being drained') : 'is in use';
  return [`${node} ${start}.`, ...linesOf(view), ''].join('\n');
}
