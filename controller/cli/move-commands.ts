import type { Command } from 'commander';
import { z } from 'zod';
import { type MovePlanView, movedView, moveView } from '../model/controller-api.ts';
import { messageOf } from '../model/errors.ts';
import { isOver, type MoveDoc, type MoveLine } from '../model/move.ts';
import { summaryOf } from '../model/move-summary.ts';
import { parseDuration } from '../model/quantity.ts';
import { CliError, type Client, path } from './client.ts';
import { createStatusLine, insist, onInterrupt } from './following.ts';
import type { Session } from './main.ts';
import { formatLine, formatMove, formatPlan, formatProgress, moveColumns } from './move-view.ts';
import { formatTable } from './output.ts';

const waitMs = 20_000;

const moveHelp = `
The containers go to the other node with their volumes, and everything that shares volumes with them or must run before or after
them. What has to be sent is sent while they run. Then new requests wait, everywhere, until they run on the other node.
What goes wrong leads back to where they were, and the last line says where they are. Ctrl-C has the move turn back, and waits for that.`;

export function addMoveCommands(program: Command, session: () => Session): void {
  program
    .command('move')
    .description('move a service to another node, with its volumes, without a failed request')
    .argument('<service>', "a service's or container's name, or a container's id")
    .argument('<node>')
    .option('--dry-run', 'say what would happen and what would be sent')
    .option('--timeout <duration>', 'how long the pause may last, 5s to 2m; no request waits longer than 30s', '30s')
    .option('--drain <duration>', 'how much of that for requests that run already; at most half of it')
    .option('--copy-timeout <duration>', 'how long to send before anything is stopped', '24h')
    .option('--detach', 'begin it and do not wait')
    .addHelpText('after', moveHelp)
    .action((service: string, node: string, options: MoveOptions) => move(session(), service, node, options));

  const moves = program.command('moves').description('moves, under way and of late');
  moves
    .command('ls')
    .description('list them, the newest first')
    .action(async () => {
      const { controller, print } = session();
      const found = await controller.get('/v1/moves', z.array(moveView));
      print(found, () => formatTable(found, moveColumns));
    });
  moves
    .command('show')
    .description('everything about one: what was done when, and why it turned back')
    .argument('<id>')
    .action(async (id: string) => {
      const { controller, print } = session();
      const found = await controller.get(path`/v1/moves/${id}`, moveView);
      print(found, () => formatMove(found));
    });
  moves
    .command('abort')
    .description('have one turn back, as long as it is not committed')
    .argument('<id>')
    .action(async (id: string) => {
      const { controller, print } = session();
      const asked = await controller.send('POST', path`/v1/moves/${id}/abort`, {}, moveView);
      print(asked, () => `Move ${asked.id} of ${asked.service} turns back: "flockctl moves show ${asked.id}".\n`);
    });
}

type MoveOptions = {
  readonly dryRun?: true;
  readonly timeout: string;
  readonly drain?: string;
  readonly copyTimeout: string;
  readonly detach?: true;
};

async function move(session: Session, service: string, node: string, options: MoveOptions): Promise<void> {
  const { controller, print } = session;
  const body = {
    ...{ service, node, dryRun: options.dryRun === true },
    pauseMs: parseDuration(options.timeout),
    copyMs: parseDuration(options.copyTimeout),
    ...(options.drain === undefined ? {} : { drainMs: parseDuration(options.drain) }),
  };
  const { plan, move: begun } = await controller.send('POST', '/v1/moves', body, movedView);
  if (begun === null) return showPlan(session, plan);
  for (const warning of plan.warnings) session.note(warning);
  if (options.detach === true) {
    print(begun, () => `Move ${begun.id} has begun: "flockctl moves show ${begun.id}" says how far it is.\n`);
    return;
  }
  const ended = await follow(session, begun);
  print(ended, () => (ended.step === 'done' ? `moved ${summaryOf(ended)}\n` : ''));
  if (ended.step !== 'done')
    throw new CliError(`${summaryOf(ended)} ("flockctl moves show ${ended.id}")`, 'move-failed');
}

function showPlan({ print }: Session, plan: MovePlanView): void {
  print(plan, () => formatPlan(plan));
  if (plan.obstacles.length > 0) throw new CliError(`${plan.service} can't be moved to ${plan.to}`, 'move-refused');
}

/** Tells what goes on until it is over. */
async function follow({ controller, say, note }: Session, begun: MoveDoc): Promise<MoveDoc> {
  const line = createStatusLine();
  const stop = onInterrupt(async () => {
    note('turning back; press Ctrl-C again to leave the move alone');
    await turnBack(controller, begun.id).catch((error: unknown) => note(messageOf(error)));
  });
  try {
    for (let seen = begun, told = 0; ; ) {
      const lines = settledLines(seen);
      if (lines.length > told) line.clear();
      for (const past of lines.slice(told)) say(`${formatLine(past)}\n`);
      told = lines.length;
      if (isOver(seen)) return seen;
      const progress = seen.step === 'copying' ? formatProgress(seen) : null;
      line.show(`${seen.step.padEnd(10)}  ${progress ?? ''}`);
      const { revision } = seen;
      seen = await insist(() =>
        controller.get(`${path`/v1/moves/${begun.id}`}?after=${revision}&waitMs=${waitMs}`, moveView),
      );
    }
  } finally {
    line.clear();
    stop();
  }
}

/** How long a handover took is known only when the step after it is over. */
function settledLines({ history, ...rest }: MoveDoc): readonly MoveLine[] {
  const last = history.at(-1)?.step;
  return !isOver({ history, ...rest }) && (last === 'committing' || last === 'returning')
    ? history.slice(0, -1)
    : history;
}

async function turnBack(controller: Client, id: string): Promise<void> {
  await insist(() => controller.send('POST', path`/v1/moves/${id}/abort`, { reason: 'Ctrl-C at flockctl' }, moveView));
}
