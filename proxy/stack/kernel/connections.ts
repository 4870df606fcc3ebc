import { CommandError, type Commands } from '../../../plugin/exec.ts';
import { hex, markMask, markOf } from './marks.ts';

/** A TCP connection as the kernel's table of connections has it: what the client sees, and what the service sees. */
export type Connection = {
  readonly state: string;
  /** The client, and the address that it has connected to. */
  readonly client: Place;
  readonly entrance: Place;
  /** Where it was led, and whom that one takes for its client. */
  readonly service: Place;
  readonly seenClient: Place;
};
export type Place = { readonly host: string; readonly port: number };

const conntrackMsMax = 20_000;
/** About a million connections. */
const outputBytesMax = 256 * 1024 * 1024;

/** Those with this number. Throws CommandError. */
export async function listConnections(commands: Commands, number: number): Promise<readonly Connection[]> {
  const args = ['-L', '-f', 'ipv4', '-p', 'tcp', '--mark', `${hex(markOf(number))}/${hex(markMask)}`];
  return readConnections(
    await commands.run('conntrack', args, { timeoutMs: conntrackMsMax, stdoutBytesMax: outputBytesMax }),
  );
}

/**
 * Forgets connections that have got no answer yet: their next try is a new connection, and goes where new ones go now. `place`: only
 * those that were led there.
 */
export async function forgetUnanswered(commands: Commands, number: number, place: Place | null = null): Promise<void> {
  const mark = `${hex(markOf(number))}/${hex(markMask)}`;
  const there = place === null ? [] : ['--reply-src', place.host, '--reply-port-src', String(place.port)];
  const args = ['-D', '-f', 'ipv4', '-p', 'tcp', '--state', 'SYN_SENT', '--mark', mark, ...there];
  try {
    await commands.run('conntrack', args, { timeoutMs: conntrackMsMax });
  } catch (error) {
    // It fails where there were none.
    if (!(error instanceof CommandError) || !error.stderr.includes('0 flow entries')) throw error;
  }
}

const linePattern =
  /^tcp\s+6\s+\d+\s+([A-Z_0-9]+)\s+src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+).*?\ssrc=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)/;

/** Of what `conntrack -L` says. Pure. */
export function readConnections(text: string): readonly Connection[] {
  return text.split('\n').flatMap((line) => {
    const found = linePattern.exec(line);
    if (found === null) return [];
    const [, state = '', ...fields] = found;
    const place = (host: number, port: number) => ({ host: fields[host] ?? '', port: Number(fields[port]) });
    return [{ state, client: place(0, 2), entrance: place(1, 3), service: place(4, 6), seenClient: place(5, 7) }];
  });
}

/** Answered and not yet closed by both ends. */
export function isRunning({ state }: Connection): boolean {
  return running.has(state);
}

const running: ReadonlySet<string> = new Set(['SYN_RECV', 'ESTABLISHED', 'FIN_WAIT', 'CLOSE_WAIT']);
