import { type Request, type Response, Router } from 'express';
import { z } from 'zod';
import { decodeVolume, type VolumeDoc } from '../../controller/model/cluster.ts';
import { FlockError } from '../../controller/model/errors.ts';
import { type NodeName, parseDatasetId, parseSnapshotName } from '../../controller/model/names.ts';
import { parseBody } from '../../controller/server/problems.ts';
import type { SessionId } from '../../controller/store/store.ts';
import type { Answers, PeerCalls, Peers } from '../cluster/ports.ts';
import type { PeerClient } from './client.ts';
import type { Partials } from './partials.ts';
import { type SendParts, sendSnapshot } from './sender.ts';

/** The calls between nodes as requests: POST /v1/peer/NAME with the question as JSON. Both ends parse what they get. */

const id = z.string().transform(parseDatasetId);
const epoch = z.int().nonnegative();
const snapshot = z.string().transform(parseSnapshotName);
const copyRequest = z.object({ id, epoch });
const volumesMax = 10_000;

const copyState = z.object({
  epoch,
  snapshots: z.array(z.object({ name: snapshot, identity: z.string() })).nullable(),
  partial: z.object({ toIdentity: z.string(), from: snapshot.nullable() }).nullish(),
  promisedMs: z.number().nullish(),
  asOfAgeMs: z.number().nullish(),
});
const doc = z.unknown().transform((value): VolumeDoc => decodeVolume(JSON.stringify(value)));

const schemas: { readonly [Name in keyof PeerCalls]: Schemas<Name> } = {
  'copy-state': { ask: copyRequest, answer: copyState },
  'rewind-copy': {
    ask: copyRequest.extend({
      common: snapshot.nullable(),
      isCovered: z.boolean().default(false),
      head: z.string().nullish(),
    }),
    answer: copyState,
  },
  'prune-copy': { ask: copyRequest.extend({ snapshots: z.array(snapshot) }), answer: z.object({}) },
  'list-snapshots': { ask: z.object({ id }), answer: copyState },
  handoff: {
    ask: z.object({
      id,
      session: z.string().transform((text) => text as SessionId),
      deadlineMs: z.number().max(600_000),
    }),
    answer: z.discriminatedUnion('kind', [
      z.object({ kind: z.literal('done'), doc }),
      z.object({ kind: z.literal('running'), sentBytes: z.number(), totalBytes: z.number().nullable() }),
    ]),
  },
  promise: {
    ask: z.object({ volumes: z.array(copyRequest).max(volumesMax) }),
    answer: z.object({ ids: z.array(id) }),
  },
  'as-of': {
    ask: z.object({
      run: z.string().nullable(),
      news: z.array(copyRequest.extend({ identity: z.string(), asOfMs: z.number() })).max(volumesMax),
    }),
    answer: z.object({ run: z.string(), bootMs: z.number() }),
  },
};

type Schemas<Name extends keyof PeerCalls> = {
  readonly ask: z.ZodType<PeerCalls[Name]['ask']>;
  readonly answer: z.ZodType<PeerCalls[Name]['answer']>;
};

/** Under a peer server, which has said who asks. `answers` null: the node is not ready. */
export function peerRoutes(answers: () => Answers | null, partials?: Partials): Router {
  const router = Router();
  const serve = <Name extends keyof PeerCalls>(name: Name) => {
    router.post(`/v1/peer/${name}`, async (request: Request, response: Response) => {
      const current = answers();
      if (current === null) throw new FlockError('not-ready', 'this node is not ready yet');
      const gone = new AbortController();
      response.on('close', () => gone.abort(new FlockError('caller-gone', 'the asking node closed the connection')));
      const ask: PeerCalls[Name]['ask'] = parseBody(schemas[name].ask, request);
      const answer = await current[name](response.locals['peer'] as NodeName, ask, gone.signal);
      // Of a stream that broke off only this side knows; the agent's answer is about what is complete.
      const partial = name === 'copy-state' && 'id' in ask ? ((await partials?.find(ask.id)) ?? null) : null;
      response.json(partial === null ? answer : { ...answer, partial });
    });
  };
  for (const name of Object.keys(schemas)) serve(name as keyof PeerCalls);
  return router;
}

export function createPeers(parts: SendParts & { readonly client: PeerClient }): Peers {
  const { client } = parts;
  return {
    async call(node, name, ask, options) {
      return schemas[name].answer.parse(await client.call(node, 'POST', `/v1/peer/${name}`, ask, options));
    },
    forward: (node, { method, path, body }, signal) =>
      client.call(node, method as 'GET' | 'POST', path, body, { signal, timeoutMs: forwardMs }),
    transfer: (node, transfer, onProgress, signal) => sendSnapshot(parts, node, transfer, onProgress, signal),
  };
}

const forwardMs = 100_000;
