import { rmSync } from 'node:fs';
import type { Server } from 'node:net';
import { messageOf } from '../../controller/model/errors.ts';
import type { Door } from './doors.ts';

export type GateListenerServer = {
  readonly server: Server;
  /** Called when no route wants it any more, after it has stopped listening: what runs may end, what is idle is closed. */
  retire(): void;
  /** Closes all its connections at once. */
  cut(): void;
};

export type ListenerStatus =
  | { readonly key: string; readonly state: 'listening' }
  /** `problem` says why and what to do; it is tried again by itself. */
  | { readonly key: string; readonly state: 'failed'; readonly problem: string };

/** Keeps exactly the doors of the newest table open. One that can't be opened is reported and tried again; the others work. */
export type Listeners = {
  /** Resolves when each is open or has failed. */
  set(wanted: readonly Door[]): Promise<readonly ListenerStatus[]>;
  status(): readonly ListenerStatus[];
  /** Stops listening; connections go on. */
  close(): Promise<void>;
  /** Closes the connections of all listeners there have been, also of those that are gone. */
  cut(): void;
};

type Entry = {
  readonly door: Door;
  made: GateListenerServer | null;
  status: ListenerStatus;
  retry: NodeJS.Timeout | null;
  isWanted: boolean;
};

const retryMs = 2_000;
const backlog = 4_096;

export function createListeners(serve: (door: Door) => GateListenerServer): Listeners {
  const entries = new Map<string, Entry>();
  const leaving = new Set<GateListenerServer>();

  async function open(entry: Entry): Promise<void> {
    const { door } = entry;
    const made = serve(door);
    const problem = await new Promise<unknown>((resolve) => {
      made.server.once('error', resolve);
      made.server.listen({ ...placeOf(door), backlog }, () => resolve(null));
    });
    made.server.on('error', () => {});
    if (problem === null && entry.isWanted) {
      entry.made = made;
      entry.status = { key: door.key, state: 'listening' };
    } else if (problem === null) made.server.close();
    else {
      entry.status = { key: door.key, state: 'failed', problem: describe(door, problem) };
      if (entry.isWanted) entry.retry = setTimeout(() => void open(entry), retryMs);
    }
  }

  function retire(entry: Entry): void {
    entry.isWanted = false;
    if (entry.retry !== null) clearTimeout(entry.retry);
    const { made } = entry;
    if (made === null) return;
    leaving.add(made);
    made.server.close(() => leaving.delete(made));
    made.retire();
  }

  const status = () => [...entries.values()].map((entry) => entry.status);

  return {
    async set(wanted) {
      const keys = new Set(wanted.map(({ key }) => key));
      for (const [key, entry] of entries) {
        if (keys.has(key)) continue;
        entries.delete(key);
        retire(entry);
      }
      const opening: Promise<void>[] = [];
      for (const door of wanted) {
        const { key } = door;
        if (entries.has(key)) continue;
        const entry: Entry = {
          door,
          made: null,
          status: { key, state: 'failed', problem: `${key} is just being opened` },
          retry: null,
          isWanted: true,
        };
        entries.set(key, entry);
        opening.push(open(entry));
      }
      await Promise.all(opening);
      return status();
    },
    status,
    async close() {
      for (const entry of entries.values()) retire(entry);
      entries.clear();
    },
    cut() {
      for (const entry of entries.values()) entry.made?.cut();
      for (const made of leaving) made.cut();
    },
  };
}

function placeOf({ at }: Door): { readonly path: string } | { readonly host?: string; readonly port: number } {
  if ('path' in at) {
    // Left by a process that was killed; there is one at a time.
    rmSync(at.path, { force: true });
    return { path: at.path };
  }
  // "*" is every address of both families, or of IPv4 alone where the kernel has no IPv6.
  return at.address === '*' ? { port: at.port } : { host: at.address, port: at.port };
}

function describe({ at }: Door, problem: unknown): string {
  return 'path' in at
    ? `${at.path} can't be opened: ${messageOf(problem)}`
    : describePort(at.address, at.port, problem);
}

/** Why an address and port can't be listened on, and what to do. */
export function describePort(address: string, port: number, problem: unknown): string {
  const where = address === '*' ? `port ${port}` : `${address}, port ${port},`;
  const code = problem instanceof Error && 'code' in problem ? problem.code : null;
  if (code === 'EADDRINUSE')
    return `${where} is in use by another program: stop that ("ss -ltnp sport = :${port}" names it) or choose another port`;
  if (code === 'EADDRNOTAVAIL') return `${where} can't be opened: this node has no such address`;
  if (code === 'EACCES') return `${where} can't be opened: ports below 1024 need root or the capability to bind them`;
  return `${where} can't be opened: ${messageOf(problem)}`;
}
