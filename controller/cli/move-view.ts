import type { MovePlanView } from '../model/controller-api.ts';
import type { MoveDoc, MoveLine } from '../model/move.ts';
import { formatSeconds, pauseMsOf } from '../model/move-summary.ts';
import { formatAge, formatSize } from '../model/quantity.ts';
import { type Column, formatFacts, formatTable } from './output.ts';

/** How moves are shown. Pure. */

export const moveColumns: readonly Column<MoveDoc>[] = [
  { title: 'ID', value: ({ id }) => id },
  { title: 'SERVICE', value: ({ service }) => service },
  { title: 'FROM', value: ({ from }) => from },
  { title: 'TO', value: ({ to }) => to },
  { title: 'STEP', value: ({ step }) => step },
  { title: 'BEGUN', value: ({ createdAtMs }) => `${formatAge(Date.now() - createdAtMs)} ago`, right: true },
  { title: 'PAUSE', value: pauseText, right: true },
  { title: 'SENT', value: ({ progress }) => (progress === null ? '-' : formatSize(progress.sentBytes)), right: true },
  { title: 'REASON', value: ({ failure }) => (failure === null ? '' : oneLine(failure.reason)) },
];

const lineColumns: readonly Column<MoveLine>[] = [
  { title: 'STEP', value: ({ step }) => step },
  { title: 'NODE', value: ({ node }) => node },
  { title: 'TOOK', value: ({ ms }) => formatSeconds(ms), right: true },
  { title: 'NOTE', value: ({ note }) => oneLine(note) },
];

export function formatMove(move: MoveDoc): string {
  const { id, service, from, to, step, cause, members, volumes, services, failure, abort, history } = move;
  const names = (list: readonly { readonly name: string }[]) => list.map(({ name }) => name).join(', ') || '-';
  const facts = formatFacts({
    Move: `${id}, ${cause === 'drain' ? `because ${from} is drained` : 'asked for'}`,
    Service: service,
    From: from,
    To: to,
    Step: step,
    Containers: names(members),
    Volumes: names(volumes),
    Paused: services.join(', ') || '-',
    Pause: pauseText(move),
    ...(abort === null ? {} : { 'Asked to turn back': abort }),
    ...(failure === null ? {} : { 'Turned back at': failure.step, Reason: failure.reason }),
  });
  return history.length === 0 ? facts : `${facts}\n${formatTable(history, lineColumns)}`;
}

/** A step that is over, as it is told while a move runs. */
export function formatLine({ step, node, ms, note }: MoveLine): string {
  return `${step.padEnd(10)}  ${node.padEnd(8)}  ${formatSeconds(ms).padStart(7)}  ${oneLine(note)}`.trimEnd();
}

const barCharacters = 24;

/** `[######----]  34 MiB of 100 MiB, 12 MiB/s`; null: nothing is known yet. */
export function formatProgress({ progress }: MoveDoc): string | null {
  if (progress === null) return null;
  const { sentBytes, totalBytes, bytesPerSecond } = progress;
  const rate = `${formatSize(bytesPerSecond)}/s`;
  if (totalBytes === null || totalBytes <= 0) return `${formatSize(sentBytes)} sent, ${rate}`;
  const done = Math.min(barCharacters, Math.round((barCharacters * sentBytes) / totalBytes));
  const bar = '#'.repeat(done).padEnd(barCharacters, '-');
  return `[${bar}]  ${formatSize(sentBytes)} of ${formatSize(totalBytes)}, ${rate}`;
}

export function formatPlan(plan: MovePlanView): string {
  const { service, from, to, containers, volumes, services, obstacles, warnings } = plan;
  const published = containers.flatMap((container) => container.published);
  const parts = [
    `${service} would go from ${from} to ${to}.\n`,
    formatTable(containers, [
      { title: 'CONTAINER', value: ({ name }) => name },
      {
        title: 'IMAGE',
        value: ({ image, bringsImage }) => `${image}${bringsImage ? ` (to be brought to ${to})` : ''}`,
      },
    ]),
    volumes.length === 0
      ? ''
      : formatTable(volumes, [
          { title: 'VOLUME', value: ({ name }) => name },
          { title: `COPY ON ${to.toUpperCase()}`, value: ({ hasCopy }) => (hasCopy ? 'yes' : 'no') },
          { title: 'TO SEND', value: sizeToSend, right: true },
        ]),
    services.length === 0
      ? 'No route or link leads to it, so nobody has to wait.\n'
      : `Requests wait meanwhile: ${services.join(', ')}.\n`,
    published.length === 0
      ? ''
      : `Published ports go along: from then on ${published.join(', ')} is at ${to}. Routes (flock.route) lead there from every node.\n`,
    'What a container has written outside of its volumes is not taken along.\n',
    warnings.map((warning) => `${warning}.\n`).join(''),
    obstacles.map((obstacle) => `! ${obstacle}\n`).join(''),
  ];
  return parts.filter((part) => part !== '').join('\n');
}

/** Of an increment btrfs knows nothing before it has made it. */
function sizeToSend({ hasCopy, bytes }: MovePlanView['volumes'][number]): string {
  if (bytes !== null) return formatSize(bytes);
  return hasCopy ? 'what has changed' : 'unknown';
}

function pauseText(move: MoveDoc): string {
  const ms = pauseMsOf(move);
  return ms === null ? '-' : formatSeconds(ms);
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, ' ').trim();
}
