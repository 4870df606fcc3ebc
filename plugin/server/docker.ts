import { setTimeout as sleep } from 'node:timers/promises';
import express, { type Express, type Request, type Response } from 'express';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { FlockError, hasCode, messageOf } from '../../controller/model/errors.ts';
import { parseVolumeName, quote } from '../../controller/model/names.ts';
import { rawOptionsSchema } from '../../controller/model/options.ts';
import { parseProblemOf } from '../../controller/model/shape.ts';
import { ownsName, type VolumeRecord } from '../../controller/model/volume.ts';
import type { Node } from '../node.ts';
import type { State } from '../state.ts';
import { createVolume } from '../volumes/create.ts';
import { mountVolume, unmountVolume } from '../volumes/mounts.ts';
import { removeVolume } from '../volumes/trash.ts';
import { brief, briefElsewhere, briefUnreadable, describe, describeElsewhere } from './docker-views.ts';

/**
 * Docker's volume protocol as Docker Engine really speaks it (docs/design.md, "The protocol in fact"):
 * no content type; after a broken connection the same call again with an EMPTY body, which must do nothing; `Opts: null`; any text
 * as a name; and an error from Get or Path means "no such volume" to Docker, which then forgets it and starts the container on an
 * empty local one. So these answer an error only where they know that there is no such volume; any other fault of theirs, an
 * unreadable request included, closes the connection (I8).
 */

/** Docker gives up after 30 s (`docker plugin enable --timeout`) and does not tell; an answer must come well before. */
const answerMsMax = 25_000;
const bodyBytesMax = 1024 * 1024;
/** How long a question waits for the state file: a restart takes a second or two; Docker waits 30 s for an answer. */
const holdMsDefault = 10_000;
const holdTickMs = 25;

const nameBody = z.object({ Name: z.string() });
const createBody = z.object({ Name: z.string(), Opts: rawOptionsSchema.nullish() });
const mountBody = z.object({ Name: z.string(), ID: z.string() });
const anyBody = z.object({});

type Answer = {
  readonly body: Readonly<Record<string, unknown>>;
  /** Takes the work back when the answer could not be delivered. */
  readonly undo?: () => Promise<void>;
};

/**
 * - work: every fault is an error, and an empty body does nothing.
 * - question: about volumes. Only `definite` errors are answered.
 * - constant: needs nothing, not even a body.
 */
type Kind = 'work' | 'question' | 'constant';

/** What can be said for certain of a name that was asked for. */
const definite = ['volume-not-found', 'invalid-name'] as const;

type Call<Body> = {
  readonly kind: Kind;
  readonly schema: z.ZodType<Body>;
  readonly handle: (body: Body, signal: AbortSignal) => Promise<Answer> | Answer;
};

export function createDockerServer(
  node: Node,
  owner: () => string,
  log: Logger,
  holdMsMax: number = holdMsDefault,
): Express {
  const app = express();
  app.disable('x-powered-by').disable('etag');
  const calls: Readonly<Record<string, Call<never>>> = {
    '/VolumeDriver.Create': call('work', createBody, async ({ Name, Opts }, signal) => {
      await createVolume(await node.usable(signal), Name, Opts ?? {}, signal);
      return { body: {} };
    }),
    '/VolumeDriver.Remove': call('work', nameBody, async ({ Name }, signal) => {
      const context = await node.ready(signal);
      const doc = context.ownership.elsewhere(parseVolumeName(Name));
      if (doc === null) await removeVolume(context, Name, 'docker', signal);
      else
        await context.ownership.forward(
          doc,
          { method: 'DELETE', path: `/v1/volumes/${Name}?caller=docker`, body: undefined },
          signal,
        );
      return { body: {} };
    }),
    '/VolumeDriver.Mount': call('work', mountBody, async ({ Name, ID }, signal) => {
      const context = await node.usable(signal);
      const path = await mountVolume(context, Name, ID, signal);
      return {
        body: { Mountpoint: path },
        undo: () => unmountVolume(context, Name, ID, AbortSignal.timeout(answerMsMax)),
      };
    }),
    '/VolumeDriver.Unmount': call('work', mountBody, async ({ Name, ID }, signal) => {
      await unmountVolume(await node.ready(signal), Name, ID, signal);
      return { body: {} };
    }),
    '/VolumeDriver.Path': call('question', nameBody, async ({ Name }, signal) => {
      const state = await openState(node, holdMsMax, signal);
      if (isUnreadable(state, Name)) return { body: { Mountpoint: '' } };
      const known = knownVolume(state, node, Name);
      return { body: { Mountpoint: 'phase' in known ? brief(node, known).Mountpoint : '' } };
    }),
    '/VolumeDriver.Get': call('question', nameBody, async ({ Name }, signal) => {
      const state = await openState(node, holdMsMax, signal);
      if (isUnreadable(state, Name)) return { body: { Volume: briefUnreadable(Name) } };
      const known = knownVolume(state, node, Name);
      node.context()?.usage.refreshSoon(known.id);
      return { body: { Volume: 'phase' in known ? describe(node, known, owner()) : describeElsewhere(known) } };
    }),
    '/VolumeDriver.List': call('question', anyBody, async (_body, signal) => {
      const state = await openState(node, holdMsMax, signal);
      const records = state.all().filter(ownsName);
      const others = node.context()?.ownership.all() ?? [];
      const volumes = [
        ...records.map((record) => brief(node, record)),
        ...others.map(briefElsewhere),
        ...state.unreadable().flatMap(({ name }) => (name === null ? [] : [briefUnreadable(name)])),
      ];
      return { body: { Volumes: volumes } };
    }),
    '/VolumeDriver.Capabilities': call('constant', anyBody, () => ({ body: { Capabilities: { Scope: 'global' } } })),
  };
  // Managed plugins are never activated; it costs nothing to answer.
  app.post('/Plugin.Activate', (_request, response) => void response.json({ Implements: ['VolumeDriver'] }));
  app.use(express.raw({ type: () => true, limit: bodyBytesMax }));
  for (const [path, made] of Object.entries(calls)) {
    app.post(path, (request, response) => answer(request, response, path, made, log));
  }
  app.use(
    (request: Request, response: Response) =>
      void response.json({ Err: `flock does not know the call ${quote(request.path)}` }),
  );
  // express knows an error handler by its four parameters.
  app.use((error: unknown, request: Request, response: Response, _next: unknown) => {
    if (calls[request.path]?.kind === 'question') response.destroy();
    else response.json({ Err: `flock: the request can't be read: ${messageOf(error)}` });
  });
  return app;
}

function call<Body>(kind: Kind, schema: z.ZodType<Body>, handle: Call<Body>['handle']): Call<never> {
  // A table of calls with different bodies; each handler only ever gets what its own schema has parsed.
  return { kind, schema, handle } as unknown as Call<never>;
}

async function answer(
  request: Request,
  response: Response,
  path: string,
  called: Call<never>,
  log: Logger,
): Promise<void> {
  const gone = new AbortController();
  response.on('close', () => gone.abort(new FlockError('caller-gone', 'the caller closed the connection')));
  const signal = AbortSignal.any([gone.signal, AbortSignal.timeout(answerMsMax)]);
  const startedMs = performance.now();
  const done = work(request.body, called, signal);
  const result = await Promise.race([done, deadline(signal)]);
  const facts = { event: 'docker.call', path, ms: Math.round(performance.now() - startedMs) };
  if (result instanceof Error && called.kind === 'question' && !hasCode(result, ...definite)) {
    log.warn({ ...facts, reason: result.message }, 'not answered, so that Docker keeps what it knows');
    response.destroy();
    return;
  }
  if (result instanceof Error) {
    const code = result instanceof FlockError ? result.code : null;
    // Docker asks every driver for every name that it does not know.
    const level = code === 'volume-not-found' ? 'debug' : 'warn';
    log[level]({ ...facts, code, error: result.message }, 'call failed');
    response.json({ Err: `flock: ${result.message}` });
    return;
  }
  log.debug(facts, 'call answered');
  response.on('close', () => {
    if (!response.writableFinished) undo(result, log);
  });
  if (response.destroyed) undo(result, log);
  else response.json({ Err: '', ...result.body });
}

async function work(raw: unknown, { kind, schema, handle }: Call<never>, signal: AbortSignal): Promise<Answer | Error> {
  try {
    return await handle(parseBody(raw, schema, kind), signal);
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** Resolves, never rejects: the work itself goes on and takes itself back (see mountVolume) when it finds the signal fired. */
function deadline(signal: AbortSignal): Promise<Error> {
  return new Promise((resolve) => {
    const expired = () =>
      resolve(
        hasCode(signal.reason, 'caller-gone')
          ? signal.reason
          : new FlockError(
              'deadline-exceeded',
              `no result within ${answerMsMax / 1000} s; what was begun goes on or is taken back, so try again`,
            ),
      );
    if (signal.aborted) expired();
    else signal.addEventListener('abort', expired, { once: true });
  });
}

function undo(result: Answer, log: Logger): void {
  result
    .undo?.()
    .catch((error: unknown) =>
      log.warn({ event: 'docker.undo-failed', error: messageOf(error) }, 'the sweep will drop the use'),
    );
}

function parseBody<Body>(raw: unknown, schema: z.ZodType<Body>, kind: Kind): Body {
  const text = Buffer.isBuffer(raw) && raw.length > 0 ? raw.toString('utf8') : kind === 'constant' ? '{}' : '';
  if (text.trim() === '')
    throw new FlockError(
      'invalid-request',
      'the request is empty (Docker repeats a broken call like this); run the command again',
    );
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new FlockError('invalid-request', `the request is not JSON: ${messageOf(error)}`);
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  throw new FlockError('invalid-request', `the request is malformed: ${parseProblemOf(parsed.error)}`);
}

/** Waits for it a while, because Docker takes a connection that is closed at once for a plugin that is broken. */
async function openState(node: Node, holdMsMax: number, signal: AbortSignal): Promise<State> {
  for (let waitedMs = 0; ; waitedMs += holdTickMs) {
    const state = node.state();
    if (state !== null) return state;
    if (waitedMs >= holdMsMax || signal.aborted)
      throw new FlockError(
        'not-ready',
        `the state file is not open: ${node.problem() ?? 'the plugin has just started'}`,
      );
    await sleep(holdTickMs);
  }
}

/** This node's record, or what it knows of another's volume. */
function knownVolume(state: State, node: Node, rawName: string): VolumeRecord | VolumeDoc {
  const name = parseVolumeName(rawName);
  const known = state.byName(name) ?? node.context()?.ownership.elsewhere(name);
  if (known !== undefined && known !== null) return known;
  // Before the start has come so far, what was last seen of the cluster counts: an error here would be "forget it" to Docker.
  const doc = state.docs().find((candidate) => candidate.name === name && candidate.trashed === null);
  if (doc !== undefined) return doc;
  throw new FlockError('volume-not-found', `there is no volume ${quote(rawName)}`);
}

function isUnreadable(state: State, rawName: string): boolean {
  return state.unreadable().some(({ name }) => name === rawName);
}
