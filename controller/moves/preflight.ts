import { type Request, Router } from 'express';
import { z } from 'zod';
import { messageOf } from '../model/errors.ts';
import type { MovePlan } from '../model/move-plan.ts';
import { type NodeName, parseNodeName } from '../model/names.ts';
import { type WorkloadDoc, workloadIdSchema } from '../model/workload.ts';
import type { AskController } from '../program/home.ts';
import { parseBody } from '../server/problems.ts';
import { partingsOf, portsTaken, sidecarsOf } from './checks.ts';
import type { MoveTools } from './ports.ts';
import { readWorkload } from './records.ts';
import { estimatesOf, lackOfRoom } from './room.ts';

/**
 * What only the two hosts see of a move that is not begun yet: how much there is to send, whose ports and names are taken, what would be
 * left behind. For `--dry-run`; a move itself looks again.
 */
const bodySchema = z.strictObject({
  side: z.enum(['from', 'to']),
  to: z.string().transform(parseNodeName),
  workloads: z.array(workloadIdSchema).max(64),
  /** Only the warnings. */
  isBrief: z.boolean().optional(),
});
type Body = z.infer<typeof bodySchema>;

const viewSchema = z.object({
  obstacles: z.array(z.string()),
  /** What keeps nobody from moving it, and is good to know. */
  warnings: z.array(z.string()).default([]),
  /** On the source: of each volume, by name, whether there is a copy, and what would be sent, in bytes. */
  volumes: z.array(z.object({ name: z.string(), hasCopy: z.boolean(), bytes: z.number().nullable() })),
  /** On the target: names of containers whose image has to be brought. */
  imagesMissing: z.array(z.string()),
});
export type Preflight = z.infer<typeof viewSchema>;

export type PreflightTools = Pick<MoveTools, 'node' | 'store' | 'docker' | 'maker' | 'plugin' | 'net'> & {
  readonly image: (name: string) => Promise<unknown>;
};

const path = '/v1/preflights';
/** Of one side; what is not known by then is left open. */
const answerMsMax = 8_000;
const estimateMsMax = 5_000;
const briefMsMax = 2_000;

/** Answers other controllers. */
export function preflightRouter(tools: PreflightTools): Router {
  return Router().post(path, async (request: Request, response) => {
    const signal = AbortSignal.timeout(answerMsMax);
    response.json(await lookHere(tools, parseBody(bodySchema, request), signal));
  });
}

export type PreflightAsker = {
  /** Asks both hosts. One that does not answer is an obstacle, for a move needs both. Rejects only with the signal. */
  whole(plan: MovePlan, signal: AbortSignal): Promise<Preflight>;
  /** Asks the source only, and shortly; nothing where it does not answer. Rejects only with the signal. */
  warnings(plan: MovePlan, signal: AbortSignal): Promise<readonly string[]>;
};

export function createPreflight(tools: PreflightTools, ask: AskController): PreflightAsker {
  async function lookAt(node: NodeName, body: Body, signal: AbortSignal, ms = answerMsMax): Promise<Preflight> {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(ms)]);
    try {
      return await (node === tools.node
        ? lookHere(tools, body, limit)
        : ask(node, { path, body, schema: viewSchema }, limit));
    } catch (error) {
      signal.throwIfAborted();
      const reason = limit.aborted ? `it gave no answer in ${ms / 1000} s` : messageOf(error);
      return { ...nothing, obstacles: [`the controller of ${node} could not be asked: ${reason}`] };
    }
  }

  const askedOf = ({ to, workloads }: MovePlan, isBrief: boolean) => ({
    ...{ to, workloads: workloads.map(({ id }) => id) },
    ...(isBrief ? { isBrief } : {}),
  });

  return {
    async whole(plan, signal) {
      const asked = askedOf(plan, false);
      const [source, target] = await Promise.all([
        lookAt(plan.from, { side: 'from', ...asked }, signal),
        lookAt(plan.to, { side: 'to', ...asked }, signal),
      ]);
      return { ...source, imagesMissing: target.imagesMissing, obstacles: [...source.obstacles, ...target.obstacles] };
    },
    async warnings(plan, signal) {
      return (await lookAt(plan.from, { side: 'from', ...askedOf(plan, true) }, signal, briefMsMax)).warnings;
    },
  };
}

const nothing: Preflight = { obstacles: [], warnings: [], volumes: [], imagesMissing: [] };

async function lookHere(tools: PreflightTools, body: Body, signal: AbortSignal): Promise<Preflight> {
  const found = await Promise.all(body.workloads.map((id) => readWorkload(tools.store, id)));
  const workloads = found.flatMap((stored) => stored?.doc ?? []);
  return body.side === 'from'
    ? await lookAtSource(tools, workloads, body, signal)
    : await lookAtTarget(tools, workloads);
}

async function lookAtSource(
  tools: PreflightTools,
  workloads: readonly WorkloadDoc[],
  { to, isBrief }: Body,
  signal: AbortSignal,
): Promise<Preflight> {
  const warnings = [...(await partingsOf(tools, workloads))];
  if (isBrief === true) return { ...nothing, warnings };
  const names = new Set(workloads.flatMap(({ volumes }) => volumes.map(({ name }) => name)));
  const members = workloads.flatMap(({ name, containerId: id }) => (id === null ? [] : [{ name, id }]));
  const limit = AbortSignal.any([signal, AbortSignal.timeout(estimateMsMax)]);
  const volumes = await estimatesOf(tools, { volumes: [...names].map((name) => ({ name })), to }, limit);
  return {
    ...nothing,
    warnings,
    obstacles: [...(await sidecarsOf(tools, members)), ...(await lackOfRoom(tools, to, volumes))],
    volumes: [...volumes],
  };
}

async function lookAtTarget(tools: PreflightTools, workloads: readonly WorkloadDoc[]): Promise<Preflight> {
  const missing = await Promise.all(
    workloads.map(async ({ name, spec }) => ((await tools.image(spec.imageId)) === null ? [name] : [])),
  );
  const taken = await Promise.all(
    workloads.map(async (workload) =>
      (await tools.maker.isNameTaken(workload))
        ? [`there is another container ${workload.name} on ${tools.node}: rename or remove one of them`]
        : [],
    ),
  );
  const obstacles = [...taken.flat(), ...(await portsTaken(tools, workloads))];
  return { ...nothing, obstacles, imagesMissing: missing.flat() };
}
