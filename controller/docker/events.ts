/** Docker's stream of events: which containers something happens to. Pure but for the waiting. */

export type ContainerEvent = {
  readonly container: string;
  /** Docker's word: start, kill, die ... */
  readonly action: string;
  /** Of `kill`: the signal's number, as text. */
  readonly signal: string | null;
};

/** A line without an end is no event of Docker's. */
const lineCharactersMax = 1024 * 1024;

/** What is asked of Docker: all that changes where, whether and under which name a container is reached. */
export const eventFilters = {
  type: ['container', 'network'],
  event: [
    ...['create', 'start', 'kill', 'stop', 'die', 'destroy', 'rename', 'pause', 'unpause', 'update', 'health_status'],
    ...['connect', 'disconnect'],
  ],
} as const;

/** The lines of a stream whose chunks end anywhere. */
export async function* linesOf(chunks: AsyncIterable<Buffer | string>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of chunks) {
    rest += typeof chunk === 'string' ? chunk : decoder.decode(chunk, { stream: true });
    const lines = rest.split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > lineCharactersMax) throw new Error(`a line of more than ${lineCharactersMax} characters`);
    yield* lines;
  }
}

/** Null: it is about no container, or the line is no event. */
export function eventOf(line: string): ContainerEvent | null {
  const event = parsed(line);
  const actor = fieldOf(event, 'Actor');
  const attributes = fieldOf(actor, 'Attributes');
  const id = fieldOf(event, 'Type') === 'network' ? fieldOf(attributes, 'container') : fieldOf(actor, 'ID');
  if (typeof id !== 'string' || id === '') return null;
  const [action, signal] = [fieldOf(event, 'Action'), fieldOf(attributes, 'signal')];
  return {
    container: id,
    action: typeof action === 'string' ? action : '',
    signal: typeof signal === 'string' ? signal : null,
  };
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
}
