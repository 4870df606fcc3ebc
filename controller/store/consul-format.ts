/** Consul's words for what the store's contract says: requests, answers and errors of its HTTP API. Pure. */
import { z } from 'zod';
import { FlockError, messageOf, unreachable } from '../model/errors.ts';
import { weight } from './requests.ts';
import { type Entry, type Operation, type Outcome, type SessionId, storeLimits } from './store.ts';

/** One operation of /v1/txn. */
export type ConsulOperation = {
  readonly KV: {
    readonly Verb: string;
    readonly Key: string;
    readonly Value?: string;
    readonly Index?: unknown;
    readonly Session?: string;
  };
};

const conflictSchema = z.object({ Errors: z.array(z.object({ OpIndex: z.number(), What: z.string() })).min(1) });
const resultsSchema = z.object({
  Results: z.array(z.object({ KV: z.object({ Key: z.string(), ModifyIndex: z.string() }) })).nullable(),
});
/** As the package decodes it: an empty value is null. Not locked: no session, or an empty one. */
const entrySchema = z.object({
  Key: z.string(),
  Value: z.string().nullable(),
  ModifyIndex: z.string(),
  Session: z.string().optional(),
});
const sessionSchema = z.object({ ID: z.string() });
/** What the package answers when it is asked for the response, too. */
const answerSchema = z.tuple([z.object({ statusCode: z.number(), headers: z.unknown() })], z.unknown());
/** Consul sends it with every answer to a read, also with "not found". */
const readHeadersSchema = z.object({ 'x-consul-index': z.string().regex(/^\d+$/) });

/** JSON with its 64-bit indexes as text, because a JavaScript number would round large ones. */
export function parseJson(text: string): unknown {
  // TypeScript does not know the third argument yet: the text as it was.
  const reviver = ((key: string, value: unknown, context: { readonly source?: string }) =>
    typeof value === 'number' && key.endsWith('Index') && key !== 'OpIndex' ? context.source : value) as Reviver;
  return JSON.parse(text, reviver);
}

type Reviver = (this: unknown, key: string, value: unknown) => unknown;

/** An index as a JSON number of all its digits. */
function rawIndex(index: string): unknown {
  return (JSON as typeof JSON & { rawJSON(text: string): unknown }).rawJSON(index);
}

/** Deleting by index succeeds in Consul when there is no such key, so the index is checked first. */
export function toConsul(operations: readonly Operation[], prefix: string): ConsulOperation[] {
  return operations.flatMap((operation): ConsulOperation[] => {
    const Key = prefix + operation.key;
    switch (operation.kind) {
      case 'set':
        return [{ KV: { Verb: 'set', Key, Value: base64(operation.value) } }];
      case 'compare-and-set': {
        // 0: only if there is no such key
        const Index = rawIndex(operation.index ?? '0');
        return [{ KV: { Verb: 'cas', Key, Value: base64(operation.value), Index } }];
      }
      case 'delete':
        return [{ KV: { Verb: 'delete', Key } }];
      case 'compare-and-delete':
        return [
          { KV: { Verb: 'check-index', Key, Index: rawIndex(operation.index) } },
          { KV: { Verb: 'delete', Key } },
        ];
      case 'check-index':
        return [{ KV: { Verb: 'check-index', Key, Index: rawIndex(operation.index) } }];
      case 'check-session':
        return [{ KV: { Verb: 'check-session', Key, Session: operation.session } }];
      case 'lock':
      case 'unlock':
        return [{ KV: { Verb: operation.kind, Key, Value: base64(operation.value), Session: operation.session } }];
      default:
        return unreachable(operation);
    }
  });
}

export function outcomeOf(answer: unknown, operations: readonly Operation[], prefix: string): Outcome {
  const newest = new Map<string, string>();
  for (const { KV } of resultsSchema.parse(answer).Results ?? []) newest.set(KV.Key, KV.ModifyIndex);
  const indexes = new Map<string, string>();
  for (const operation of operations) {
    const index = newest.get(prefix + operation.key);
    if ('value' in operation && index !== undefined) indexes.set(operation.key, index);
    if (operation.kind === 'delete' || operation.kind === 'compare-and-delete') indexes.delete(operation.key);
  }
  return { kind: 'done', indexes };
}

/** What a 409 says. */
export function conflictOf(answer: unknown, operations: readonly Operation[]): Outcome {
  const errors = conflictSchema.parse(answer).Errors;
  const first = errors.reduce((least, error) => (error.OpIndex < least.OpIndex ? error : least));
  let consulPosition = 0;
  const operation = operations.findIndex((each) => {
    consulPosition += weight(each);
    return first.OpIndex < consulPosition;
  });
  return { kind: 'conflict', operation, reason: first.What };
}

/** The decoded body of an answer with its response. */
export function bodyOf(answer: unknown): unknown {
  const [, body] = answerSchema.parse(answer);
  return body;
}

export function sessionOf(body: unknown): SessionId {
  return sessionSchema.parse(body).ID as SessionId;
}

/** A lease hangs on this: only the session itself counts as "renewed". */
export function checkRenewed(body: unknown, id: SessionId): void {
  z.tuple([z.object({ ID: z.literal(id) })]).parse(body);
}

/** One read of a key or of a prefix: the entries by key, and the index to wait for the next change from. */
export function readingOf(
  answer: unknown,
  prefix: string,
): { readonly entries: readonly Entry[]; readonly index: string } {
  const [{ statusCode, headers }, body] = answerSchema.parse(answer);
  const index = readHeadersSchema.parse(headers)['x-consul-index'];
  if (statusCode === 404) return { entries: [], index };
  return { entries: entriesOf(Array.isArray(body) ? body : [body], prefix), index };
}

/** What others keep below our prefix under names that can't be ours is left out. */
export function entriesOf(items: unknown, prefix: string): Entry[] {
  return z
    .array(entrySchema)
    .parse(items)
    .flatMap(({ Key, Value, ModifyIndex, Session }) => {
      const key = Key.slice(prefix.length);
      if (!storeLimits.key.test(key)) return [];
      const session = Session === undefined || Session === '' ? null : (Session as SessionId);
      return [{ key, value: Value ?? '', index: ModifyIndex, session }];
    });
}

/** The part of the package's errors that is looked at. */
const responseErrorSchema = z.object({ response: z.object({ statusCode: z.number(), body: z.unknown() }) });

export function responseOf(error: unknown): { readonly status: number; readonly body: unknown } | null {
  const found = responseErrorSchema.safeParse(error);
  return found.success ? { status: found.data.response.statusCode, body: found.data.response.body } : null;
}

/** Consul says so itself: any other "not found" may be of another program. */
export function isNoSuchSession(error: unknown, id: SessionId): boolean {
  const response = responseOf(error);
  return response?.status === 404 && typeof response.body === 'string' && response.body.includes(id);
}

/** Any failed request as the contract's error. */
export function toFlockError(error: unknown, address: string): FlockError {
  if (error instanceof FlockError) return error;
  const response = responseOf(error);
  const said = saidBy(error, response?.body);
  const facts = { address, status: response?.status ?? null };
  const isOurs = response?.status === 400 || response?.status === 413 || said.startsWith('Invalid Session TTL');
  if (isOurs) return new FlockError('invalid-request', `Consul refuses the request: ${said}`, facts, { cause: error });
  const wayOut =
    response?.status === 403
      ? 'give flock a token that may write its keys and sessions'
      : 'see whether its agent runs and "consul operator raft list-peers" names a leader';
  const text = `Consul at ${address} can't be used: ${said} (${wayOut})`;
  return new FlockError('store-unavailable', text, facts, { cause: error });
}

function saidBy(error: unknown, body: unknown): string {
  if (typeof body === 'string') return body.trim().slice(0, saidCharactersMax);
  return error instanceof z.ZodError ? 'what answers there is not Consul' : messageOf(error);
}

/** Of another program's page, for one. */
const saidCharactersMax = 300;

function base64(value: string): string {
  return Buffer.from(value).toString('base64');
}
