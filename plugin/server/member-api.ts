import { type Request, Router } from 'express';
import { z } from 'zod';
import {
  type CopyView,
  copyView,
  failoverBody,
  type StashView,
  stashRestoreBody,
  stashView,
} from '../../controller/model/api.ts';
import { FlockError } from '../../controller/model/errors.ts';
import { type NodeName, parseNodeName, parseVolumeName, quote } from '../../controller/model/names.ts';
import { parseBody } from '../../controller/server/problems.ts';
import type { Agent } from '../cluster/agent.ts';
import type { Member } from '../member.ts';
import type { Node } from '../node.ts';
import type { Context } from '../volumes/context.ts';
import { removeStash, restoreStash, stashedVolumes } from '../volumes/stash.ts';
import { viewVolume } from '../volumes/views.ts';
import { copyEstimate, copyRound, handOver } from './moving-api.ts';

const answerMsMax = 100_000;
/** A node that is just dying must not hold up a listing. */
const listingMsMax = 3_000;

/**
 * What exists in a cluster only: copies, stashes, failover. Each node answers for itself; asked by a person (not `isForwarded`) it puts
 * the answers of all living nodes together, or passes the request on to the node that it is about.
 */
export function memberRoutes(node: Node, member: Pick<Member, 'agent' | 'identity'>, isForwarded: boolean): Router {
  const router = Router();

  function running(): { readonly agent: Agent; readonly me: NodeName } {
    const agent = member.agent();
    const identity = member.identity();
    if (agent !== null && identity !== null) return { agent, me: identity.name };
    if (identity !== null)
      throw new FlockError('not-ready', 'this node waits for the store; "flockctl status" shows whether it answers');
    throw new FlockError('no-cluster', 'this host is in no cluster: "flockctl init" makes one');
  }

  const route = (
    method: 'get' | 'post' | 'delete',
    path: string,
    work: (context: Context, request: Request, signal: AbortSignal) => Promise<unknown>,
  ) =>
    router[method](path, async (request, response) => {
      const gone = new AbortController();
      response.on('close', () => gone.abort(new FlockError('caller-gone', 'the caller closed the connection')));
      const signal = AbortSignal.any([gone.signal, AbortSignal.timeout(answerMsMax)]);
      response.json((await work(await node.ready(signal), request, signal)) ?? {});
    });

  /** This node's own part and, for people, that of every other node that answers in time. */
  async function everywhere<T>(path: string, own: readonly T[], schema: z.ZodType<T>): Promise<readonly T[]> {
    const { agent, me } = running();
    if (isForwarded) return own;
    const others = [...agent.directory.nodes()].filter(({ doc, alive }) => doc.name !== me && alive !== null);
    const parts = await Promise.all(
      others.map(async ({ doc }) => {
        const request = { method: 'GET', path, body: undefined };
        const answer = await agent.forward(doc.name, request, AbortSignal.timeout(listingMsMax)).catch(() => []);
        return z.array(schema).parse(answer);
      }),
    );
    return [...own, ...parts.flat()];
  }

  /** Has another node do it; null: it is ours to do. */
  async function passOn(
    target: NodeName,
    request: Request,
    signal: AbortSignal,
  ): Promise<{ readonly answer: unknown } | null> {
    const { agent, me } = running();
    if (isForwarded || target === me) return null;
    const { method, originalUrl: path, body } = request;
    return { answer: await agent.forward(target, { method, path, body }, signal) };
  }

  function ownStashes(context: Context): StashView[] {
    const { me } = running();
    return stashedVolumes(context).map(({ id, name, epoch, phase }) => ({
      id,
      volume: name,
      node: me,
      epoch,
      common: phase.common,
      stashedAtMs: phase.stashedAtMs,
      expiresAtMs: phase.expiresAtMs,
      totalBytes: context.usage.of(id)?.totalBytes ?? null,
    }));
  }

  async function holderOf(context: Context, id: string): Promise<NodeName> {
    const found = (await everywhere('/v1/stashes', ownStashes(context), stashView)).find((stash) => stash.id === id);
    if (found !== undefined) return parseNodeName(found.node);
    throw new FlockError('volume-not-found', `no living node has a stash ${quote(id)}: "flockctl stash ls" lists them`);
  }

  route('get', '/v1/copies', (context) => {
    const { agent, me } = running();
    const own = context.state
      .all()
      .flatMap((record): CopyView[] =>
        record.phase.kind === 'ready'
          ? agent.copies(record.id).map((copy) => ({ ...copy, volume: record.name, owner: me }))
          : [],
      );
    return everywhere('/v1/copies', own, copyView);
  });

  // A controller asks its own node's plugin only.
  if (!isForwarded) {
    route('post', '/v1/handovers', (context, request) => handOver(context, running().agent.moving, request));
    route('post', '/v1/copies', (context, request, signal) =>
      copyRound(context, running().agent.moving, request, signal),
    );
    route('get', '/v1/copies/estimate', (context, request, signal) =>
      copyEstimate(context, running().agent.moving, request, signal),
    );
  }

  route('get', '/v1/stashes', async (context) => {
    await context.usage.refresh().catch(() => undefined);
    return await everywhere('/v1/stashes', ownStashes(context), stashView);
  });
  route('post', '/v1/stashes/:id/restore', async (context, request, signal) => {
    const id = String(request.params['id']);
    const passed = await passOn(await holderOf(context, id), request, signal);
    if (passed !== null) return passed.answer;
    const restored = await restoreStash(context, id, parseBody(stashRestoreBody, request).name, signal);
    return viewVolume(context, restored, running().me);
  });
  route('delete', '/v1/stashes/:id', async (context, request, signal) => {
    const id = String(request.params['id']);
    const passed = await passOn(await holderOf(context, id), request, signal);
    return passed !== null ? passed.answer : await removeStash(context, id, signal);
  });

  route('get', '/v1/volumes/:name/failover', (_context, request, signal) =>
    running().agent.previewFailover(parseVolumeName(String(request.params['name'])), signal),
  );
  route('post', '/v1/volumes/:name/failover', async (context, request, signal) => {
    const { agent } = running();
    const name = parseVolumeName(String(request.params['name']));
    const { node: wanted, force } = parseBody(failoverBody, request);
    const passed = await passOn(wanted === null ? candidate(name) : parseNodeName(wanted), request, signal);
    if (passed !== null) return passed.answer;
    return viewVolume(context, await agent.takeOver(name, { force }, signal), running().me);
  });

  /** Where a person says no node: this one if it has a copy, else the first living one that has. */
  function candidate(name: ReturnType<typeof parseVolumeName>): NodeName {
    const { agent, me } = running();
    const doc = agent.directory.byName(name)?.doc;
    if (doc === undefined) throw new FlockError('volume-not-found', `there is no volume ${quote(name)}`);
    if (doc.replicas.includes(me)) return me;
    const living = doc.replicas.find((replica) => agent.directory.node(replica)?.alive !== null);
    if (living !== undefined) return living;
    throw new FlockError('no-place', `no living node has a copy of volume ${quote(name)}`);
  }

  return router;
}
