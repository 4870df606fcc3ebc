/** Texts of HAProxy's command line (management.txt 9.3 and 9.4), to it and from it. Pure. */

export const commandsOf = {
  addEntry: (map: string, key: string, value: string) => `add map ${escaped(map)} ${escaped(key)} ${escaped(value)}`,
  setEntry: (map: string, key: string, value: string) => `set map ${escaped(map)} ${escaped(key)} ${escaped(value)}`,
  removeEntry: (map: string, key: string) => `del map ${escaped(map)} ${escaped(key)}`,
  showMap: (map: string) => `show map ${escaped(map)}`,
  /** It gets nothing before it is enabled: its own word "enabled" would not make it share in the balance. */
  addServer: (backend: string, text: string) => `add server ${backend}/${text}`,
  enable: (backend: string, server: string) => `enable server ${backend}/${server}`,
  /** Nothing new goes there; what runs goes on. */
  disable: (backend: string, server: string) => `disable server ${backend}/${server}`,
  /** Of a disabled one without connections. */
  removeServer: (backend: string, server: string) => `del server ${backend}/${server}`,
  sessions: 'show sess',
  cut: (session: string) => `shutdown session ${session}`,
  showServers: 'show stat -1 4 -1',
  /** Of the backend as a whole. */
  counts: (backend: string) => `show stat ${backend} 2 -1`,
} as const;

/** `;` ends a command. */
function escaped(word: string): string {
  return word.replaceAll(/[\\; ]/g, '\\$&');
}

/** What the answer to a change means. */
export type Outcome = 'done' | 'busy' | 'refused';

const outcomes: readonly (readonly [RegExp, Outcome])[] = [
  [/^$/, 'done'],
  [/^New server registered\.$/, 'done'],
  [/^Server deleted\.$/, 'done'],
  [/^Server still has connections attached to it/, 'busy'],
];

export function outcomeOf(answer: string): Outcome {
  return outcomes.find(([pattern]) => pattern.test(answer.trim()))?.[1] ?? 'refused';
}

/** Longer lines lose commands in the master of HAProxy 2.6. */
const lineBytesMax = 4_000;

/**
 * Several commands per line, each answered by lines up to an empty one; but HAProxy forgets the empty line after some messages. So each
 * line ends with a question whose answer is known, and commands that are answered so have lines of their own.
 */
export function linesOf(commands: readonly string[]): readonly (readonly string[])[] {
  const lines: string[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const command of commands) {
    bytes += Buffer.byteLength(command) + 2;
    if (bytes > lineBytesMax || command.startsWith(aloneBegin) || lines.at(-1)?.[0]?.startsWith(aloneBegin)) {
      lines.push([]);
      bytes = Buffer.byteLength(command) + 2;
    }
    lines.at(-1)?.push(command);
  }
  return lines;
}

const aloneBegin = 'del server ';

/** No variable has such a name. */
export const endQuestion = 'show env end-of-answers';
export const endAnswer = 'Variable not found\n\n';

/** The answers to the commands of one line, without the last; null: there are not as many. */
export function answersIn(text: string, count: number): readonly string[] | null {
  if (count === 1) return [text.trim()];
  const answers: string[] = [];
  let current: string[] = [];
  for (const line of text.split('\n').slice(0, -1)) {
    if (line !== '') current.push(line);
    else {
      answers.push(current.join('\n'));
      current = [];
    }
  }
  return answers.length === count && current.length === 0 ? answers : null;
}

export type Processes = {
  /** Of the master: reloads that have worked, and that have failed since. */
  readonly reloads: number;
  readonly failed: number;
  readonly workers: readonly WorkerProcess[];
};

export type WorkerProcess = {
  readonly pid: number /** From before a reload: it ends with its connections. */;
  readonly isOld: boolean;
};

/** Of `show proc`. Null: it is something else. */
export function parseProcesses(text: string): Processes | null {
  const master = /^\d+\s+master\s+(\d+) \[failed: (\d+)\]/m.exec(text);
  if (master === null) return null;
  const workers: WorkerProcess[] = [];
  let isOld = false;
  for (const line of text.split('\n')) {
    if (line.startsWith('# old workers')) isOld = true;
    else if (line.startsWith('# ')) isOld = false;
    const pid = /^(\d+)\s+worker\s/.exec(line)?.[1];
    if (pid !== undefined) workers.push({ pid: Number(pid), isOld });
  }
  return { reloads: Number(master[1]), failed: Number(master[2]), workers };
}

export type Info = {
  readonly description: string;
  /** Seconds since 1970, on HAProxy's clock. */
  readonly startedAtS: number;
  readonly isStopping: boolean;
};

/** Of `show info`. */
export function parseInfo(text: string): Info {
  const of = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(text)?.[1] ?? '';
  return {
    description: of('description'),
    startedAtS: Number(of('Start_time_sec')),
    isStopping: of('Stopping') === '1',
  };
}

/** Of `show map FILE`. */
export function parseMap(text: string): Map<string, string> {
  const entries = new Map<string, string>();
  for (const line of text.split('\n')) {
    const [, key, value] = line.split(' ');
    if (line.startsWith('0x') && key !== undefined) entries.set(key, value ?? '');
  }
  return entries;
}

/** Files of `show map`. */
export function parseMapFiles(text: string): readonly string[] {
  return [...text.matchAll(/^-?\d+ \(([^)]+)\)/gm)].map(([, file]) => file ?? '');
}

/** Of `show backend`. */
export function parseBackends(text: string): ReadonlySet<string> {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Set(lines);
}

export type ServerState = { readonly backend: string; readonly name: string; readonly isDisabled: boolean };

/** Of `show stat` with servers. */
export function parseServers(text: string): readonly ServerState[] {
  const [header = '', ...rows] = text.split('\n').filter((line) => line !== '');
  const columns = header.replace('# ', '').split(',');
  const status = columns.indexOf('status');
  return rows.map((row) => {
    const fields = row.split(',');
    return {
      backend: fields[0] ?? '',
      name: fields[1] ?? '',
      isDisabled: fields[status]?.startsWith('MAINT') ?? false,
    };
  });
}

/** The sessions that run, of `show stat` with one row. Zero: there is no such backend in this worker. */
export function parseSessions(text: string): number {
  const [header = '', row] = text.split('\n').filter((line) => line !== '');
  const column = header.replace('# ', '').split(',').indexOf('scur');
  return row === undefined ? 0 : Number(row.split(',')[column] ?? 0);
}

/** Ids of the sessions in these backends, of `show sess`. */
export function parseSessionIds(text: string, backends: ReadonlySet<string>): readonly string[] {
  return [...text.matchAll(/^(0x[0-9a-f]+): .* be=(\S+) /gm)]
    .filter(([, , backend]) => backends.has(backend ?? ''))
    .map(([, id]) => id ?? '');
}
