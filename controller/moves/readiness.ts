import { z } from 'zod';
import { placedSchema, placesOf } from '../model/container-address.ts';
import { hasCode, messageOf } from '../model/errors.ts';
import type { Executed } from '../program/docker.ts';
import type { MoveTools } from './ports.ts';

/** Whether a container that was started is ready: its ports take connections, and its health check has nothing against it. */

/** Of a container that has neither ports nor a health check: that it has not ended by then is all that can be told. */
const settledMs = 2_000;
/** Docker's own default of a check's time. */
const checkMsDefault = 30_000;
const nanosecondsOfMs = 1_000_000;
const shellDefault = ['/bin/sh', '-c'];
const saidCharactersMax = 200;

const inspectedSchema = z.object({
  State: z.object({
    Running: z.boolean(),
    Restarting: z.boolean().default(false),
    ExitCode: z.number().default(0),
    Error: z.string().default(''),
    Health: z.object({ Status: z.string() }).nullish(),
  }),
  Config: z
    .object({
      Healthcheck: z.object({ Test: z.array(z.string()).nullish(), Timeout: z.number().nullish() }).nullish(),
      Shell: z.array(z.string()).nullish(),
    })
    .nullish(),
  HostConfig: z.object({ NetworkMode: z.string().default('') }),
  NetworkSettings: z.object({
    Networks: z.record(z.string(), placedSchema).nullish(),
  }),
});
export type Inspected = z.infer<typeof inspectedSchema>;

export async function look({ docker }: MoveTools, id: string): Promise<Inspected | null> {
  const answer = await docker.inspect(id);
  return answer === null ? null : inspectedSchema.parse(answer);
}

export type Started = {
  readonly id: string;
  readonly found: Inspected;
  readonly ports: readonly number[];
  /** Its health check had failed before it was moved, and says nothing. */
  readonly isUnhealthy: boolean;
  /** Since its start. */
  readonly forMs: number;
  /** When it must be ready (boot clock). */
  readonly untilBootMs: number;
};

/** What a container that runs lacks to be ready, for "it ..."; null: nothing. */
export async function lacks(tools: MoveTools, started: Started, signal: AbortSignal): Promise<string | null> {
  const { found, ports, isUnhealthy, forMs } = started;
  if (ports.length > 0) {
    const closed = await closedOf(tools, found, ports, signal);
    if (closed === null) return 'has no address';
    if (closed.length > 0) return `takes no connections on port ${closed.join(', ')}`;
  }
  const check = isUnhealthy ? null : checkOf(found);
  if (check !== null) return await isIll(tools, started, check, signal);
  return ports.length > 0 || forMs >= settledMs ? null : 'has just been started';
}

/** Which of these ports take no connections; null: it has no address. */
export async function closedOf(
  { reach }: Pick<MoveTools, 'reach'>,
  found: Inspected,
  ports: readonly number[],
  signal: AbortSignal,
): Promise<readonly number[] | null> {
  const address = addressOf(found);
  if (address === null) return null;
  const open = await Promise.all(ports.map((port) => reach(address, port, signal)));
  return ports.filter((_, index) => open[index] !== true);
}

type Check = { readonly command: readonly string[]; readonly timeMs: number };

/** The command of the health check, as Docker would run it. */
function checkOf({ Config }: Inspected): Check | null {
  const [kind, ...words] = Config?.Healthcheck?.Test ?? [];
  if (kind === undefined || kind === 'NONE') return null;
  const shell = Config?.Shell ?? [];
  const command = kind === 'CMD-SHELL' ? [...(shell.length > 0 ? shell : shellDefault), ...words] : words;
  const timeMs = Math.round((Config?.Healthcheck?.Timeout ?? 0) / nanosecondsOfMs);
  return { command, timeMs: timeMs > 0 ? timeMs : checkMsDefault };
}

/**
 * Docker runs a check only after its first interval, half a minute by default, and until then a database whose port is open may still be
 * starting. So the check is run here, too.
 */
async function isIll(
  { docker, clock }: MoveTools,
  { id, found, untilBootMs }: Started,
  { command, timeMs }: Check,
  signal: AbortSignal,
): Promise<string | null> {
  if (found.State.Health?.Status === 'healthy') return null;
  const limitMs = Math.max(1, Math.min(timeMs, untilBootMs - clock.bootMs()));
  let executed: Executed;
  try {
    executed = await docker.execute(id, command, limitMs, signal);
  } catch (error) {
    signal.throwIfAborted();
    // It may just have ended, which the next look tells.
    if (hasCode(error, 'docker-failed')) return `is not known to be healthy: ${messageOf(error)}`;
    throw error;
  }
  const { exitCode, output } = executed;
  if (exitCode === 0) return null;
  const end = exitCode === null ? `did not end within ${limitMs} ms` : `ended with ${exitCode}`;
  const said = output.trim().slice(-saidCharactersMax);
  return `is not healthy: its health check ${end}${said === '' ? '' : `: ${said}`}`;
}

function addressOf({ HostConfig, NetworkSettings }: Inspected): string | null {
  if (HostConfig.NetworkMode === 'host') return '127.0.0.1';
  return placesOf(HostConfig.NetworkMode, NetworkSettings.Networks ?? {})[0]?.address ?? null;
}
