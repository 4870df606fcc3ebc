import type { Request } from 'express';
import {
  type CopyEstimateView,
  type CopyRoundView,
  copyBody,
  type HandoverBody,
  type HandoverView,
  handoverBody,
} from '../../controller/model/api.ts';
import { FlockError } from '../../controller/model/errors.ts';
import { moveKeys } from '../../controller/model/move.ts';
import { parseNodeName, parseVolumeName, quote, type VolumeName } from '../../controller/model/names.ts';
import { workloadKeys } from '../../controller/model/workload.ts';
import { parseBody } from '../../controller/server/problems.ts';
import { checkOperations } from '../../controller/store/requests.ts';
import { type Operation, storeLimits } from '../../controller/store/store.ts';
import type { Moving } from '../cluster/moving.ts';
import { type Context, readyVolume } from '../volumes/context.ts';

/** What this node's controller asks for when it moves containers with their volumes: about this node's volumes, so never passed on. */

const volumesMax = 20;
/** A volume's owner and lock change in so many operations of the store. */
const operationsOfVolume = 3;
/** The rest of a transaction is for the documents of volumes, each of which is in it twice. */
const bytesMax = storeLimits.transactionBytesMax - 96 * 1024;
const prefixes = [moveKeys.moves, workloadKeys.workloads] as const;

export async function handOver(context: Context, moving: Moving, request: Request): Promise<HandoverView> {
  const body = parseBody(handoverBody, request);
  const { to, names, also } = parseHandover(body);
  const records = names.map((name) => knownVolume(context, name));
  const epochs = await moving.handOver({ records, to, also, deadlineMs: body.deadlineMs });
  return { volumes: names.map((name, index) => ({ name, epoch: epochs[index] ?? 0 })) };
}

/** Throws `invalid-request` for what no transaction could hold, or nobody may change this way. Pure. */
export function parseHandover({ to, volumes, operations }: HandoverBody) {
  const names = volumes.map(parseVolumeName);
  if (new Set(names).size < names.length) throw invalid('a volume is named twice');
  if (names.length > volumesMax) throw invalid(`${names.length} volumes: at most ${volumesMax} go in one transaction`);
  const count = operationsOfVolume * names.length + operations.length;
  if (count > storeLimits.operationsMax)
    throw invalid(
      `${names.length} volumes and ${operations.length} operations are ${count} of the store's (${operationsOfVolume} for each volume), which takes ${storeLimits.operationsMax} in one transaction: move fewer at once`,
    );
  for (const { key } of operations)
    if (!prefixes.some((prefix) => key.startsWith(`${prefix}/`)))
      throw invalid(`${quote(key)} can't be changed with volumes, only what is below ${prefixes.join('/ and ')}/`);
  const also = operations.map((operation) => ({ kind: 'compare-and-set', ...operation }) satisfies Operation);
  if (also.length > 0) checkOperations(also);
  const bytes = also.reduce((sum, { key, value }) => sum + key.length + Buffer.byteLength(value), 0);
  if (bytes > bytesMax)
    throw invalid(`operations of ${bytes} bytes: at most ${bytesMax} go in one transaction with volumes`);
  return { to: parseNodeName(to), names, also };
}

function invalid(text: string): FlockError {
  return new FlockError('invalid-request', text);
}

/** Also one of which it is not known yet whether it was handed over. */
function knownVolume(context: Context, name: VolumeName) {
  const record = context.state.byName(name);
  return record?.phase.kind === 'handing-over' ? record : readyVolume(context, name);
}

export async function copyRound(
  context: Context,
  moving: Moving,
  request: Request,
  signal: AbortSignal,
): Promise<CopyRoundView> {
  const { volume, to } = parseBody(copyBody, request);
  const record = readyVolume(context, parseVolumeName(volume));
  return await moving.copyRound(record, parseNodeName(to), signal);
}

export async function copyEstimate(
  context: Context,
  moving: Moving,
  request: Request,
  signal: AbortSignal,
): Promise<CopyEstimateView> {
  const { volume, to } = request.query;
  if (typeof volume !== 'string' || typeof to !== 'string')
    throw invalid('name the volume and the node: /v1/copies/estimate?volume=NAME&to=NODE');
  const record = readyVolume(context, parseVolumeName(volume));
  // Of a volume that was just made nothing is known yet.
  if (context.usage.of(record.id) === null) await context.usage.refresh().catch(() => undefined);
  return await moving.estimate(record, parseNodeName(to), signal);
}
