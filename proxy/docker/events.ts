/** Docker's stream of events, of which only the ids of the containers that they are about are used. Pure but for the waiting. */

/** A line without an end is no event of Docker's. */
const lineCharactersMax = 1024 * 1024;

/** What is asked of Docker: all that changes where, whether and under which name a container is reached. */
export const eventFilters = {
  type: ['container', 'network'],
  event: [
    ...['create', 'start', 'die', 'destroy', 'rename', 'pause', 'unpause', 'health_status'],
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

/** The container that an event is about; null: of none, or the line is no event. */
export function containerOf(line: string): string | null {
  const event = parsed(line);
  const actor = fieldOf(event, 'Actor');
  const id =
    fieldOf(event, 'Type') === 'network' ? fieldOf(fieldOf(actor, 'Attributes'), 'container') : fieldOf(actor, 'ID');
  return typeof id === 'string' && id !== '' ? id : null;
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
