import { type Request, Router } from 'express';
import {
  changeBody,
  createBody,
  type PoolView,
  restoreBody,
  rollbackBody,
  settingsBody,
  snapshotBody,
  type VersionView,
} from '../../controller/model/api.ts';
import { FlockError } from '../../controller/model/errors.ts';
import { isVolumeName, parseVolumeName } from '../../controller/model/names.ts';
import { parseFailoverPolicy } from '../../controller/model/options.ts';
import { parseDuration, parseSize } from '../../controller/model/quantity.ts';
import { parseSetting, type SettingsRequest } from '../../controller/model/settings.ts';
import { param, parseBody } from '../../controller/server/problems.ts';
import type { Node } from '../node.ts';
import { changeFailover, protectVolume, resizeVolume } from '../volumes/change.ts';
import { type Context, existingVolume } from '../volumes/context.ts';
import { createVolume } from '../volumes/create.ts';
import { createSnapshot, listSnapshots, removeSnapshot, rollbackVolume } from '../volumes/snapshots.ts';
import { purgeVolume, removeVolume, restoreVolume, trashedVolumes } from '../volumes/trash.ts';
import { viewElsewhere, viewPool, viewSnapshot, viewTrashed, viewVolume, visibleVolumes } from '../volumes/views.ts';

const answerMsMax = 120_000;

type Handler = (context: Context, request: Request, signal: AbortSignal) => Promise<unknown>;

/** All about volumes. What another node owns is asked of that node, once: `isForwarded` says that a node asks already. */
export function volumeRoutes(node: Node, owner: () => string, version: VersionView, isForwarded: boolean): Router {
  const app = Router();

  async function forwarded(
    context: Context,
    request: Request,
    signal: AbortSignal,
  ): Promise<{ readonly answer: unknown } | null> {
    const { name } = request.params;
    if (name === undefined || isForwarded || !isVolumeName(name)) return null;
    const doc = context.ownership.elsewhere(parseVolumeName(String(name)));
    if (doc === null) return null;
    const { method, originalUrl: path, body } = request;
    return { answer: await context.ownership.forward(doc, { method, path, body }, signal) };
  }

  const route = (method: 'get' | 'post' | 'patch' | 'delete', path: string, handler: Handler) =>
    app[method](path, async (request, response) => {
      const gone = new AbortController();
      response.on('close', () => gone.abort(new FlockError('caller-gone', 'the caller closed the connection')));
      const signal = AbortSignal.any([gone.signal, AbortSignal.timeout(answerMsMax)]);
      const context = await (method === 'post' ? node.usable(signal) : node.ready(signal));
      const elsewhere = await forwarded(context, request, signal);
      response.json(elsewhere === null ? ((await handler(context, request, signal)) ?? {}) : elsewhere.answer);
    });
  const volume = (context: Context, name: string) =>
    viewVolume(context, existingVolume(context, parseVolumeName(name)), owner());

  app.get('/v1/version', (_request, response) => void response.json(version));
  app.get('/v1/pool', async (_request, response) => void response.json(await poolView(node)));
  route('get', '/v1/volumes', async (context) => {
    await refreshIfPossible(context);
    const local = visibleVolumes(context).map((record) => viewVolume(context, record, owner()));
    const others = isForwarded ? [] : context.ownership.all().map((doc) => viewElsewhere(context, doc));
    return [...local, ...others].sort((a, b) => (a.name < b.name ? -1 : 1));
  });
  route('post', '/v1/volumes', async (context, request, signal) => {
    const { name, options } = parseBody(createBody, request);
    const made = await createVolume(context, name, options, signal);
    const doc = made === null ? context.ownership.elsewhere(parseVolumeName(name)) : null;
    return doc === null ? volume(context, name) : viewElsewhere(context, doc);
  });
  route('get', '/v1/volumes/:name', async (context, request) => {
    const record = existingVolume(context, parseVolumeName(param(request, 'name')));
    await refreshIfPossible(context);
    const snapshots = await listSnapshots(context, record.name).catch(() => null);
    return { ...viewVolume(context, record, owner()), snapshots: snapshots?.length ?? null };
  });
  route('patch', '/v1/volumes/:name', async (context, request, signal) => {
    const { size, protect, failover, 'max-loss': maxLoss } = parseBody(changeBody, request);
    const lossOptions = {
      ...(failover === undefined ? {} : { failover: parseFailoverPolicy(failover) }),
      ...(maxLoss === undefined ? {} : { maxLossMs: maxLoss === 'none' ? null : parseDuration(maxLoss) }),
    };
    const name = param(request, 'name');
    if (size !== undefined) await resizeVolume(context, name, size === 'none' ? null : parseSize(size), signal);
    if (protect !== undefined) await protectVolume(context, name, protect === 'true', signal);
    if (Object.keys(lossOptions).length > 0) await changeFailover(context, name, lossOptions, signal);
    return volume(context, name);
  });
  route('delete', '/v1/volumes/:name', (context, request, signal) =>
    removeVolume(context, param(request, 'name'), request.query['caller'] === 'docker' ? 'docker' : 'operator', signal),
  );
  route('get', '/v1/volumes/:name/snapshots', async (context, request) =>
    (await listSnapshots(context, param(request, 'name'))).map(viewSnapshot),
  );
  route('post', '/v1/volumes/:name/snapshots', async (context, request, signal) =>
    viewSnapshot(await createSnapshot(context, param(request, 'name'), parseBody(snapshotBody, request).name, signal)),
  );
  route('delete', '/v1/volumes/:name/snapshots/:snapshot', (context, request, signal) =>
    removeSnapshot(context, param(request, 'name'), param(request, 'snapshot'), signal),
  );
  route('post', '/v1/volumes/:name/rollback', async (context, request, signal) => {
    const name = param(request, 'name');
    const kept = await rollbackVolume(context, name, parseBody(rollbackBody, request).snapshot, signal);
    return { volume: volume(context, name), aside: kept.id };
  });
  route('get', '/v1/trash', async (context) => {
    await refreshIfPossible(context);
    return trashedVolumes(context).map((record) => viewTrashed(context, record));
  });
  route('post', '/v1/trash/:reference/restore', async (context, request, signal) => {
    const restored = await restoreVolume(
      context,
      param(request, 'reference'),
      parseBody(restoreBody, request).name,
      signal,
    );
    return volume(context, restored.name);
  });
  route('delete', '/v1/trash/:reference', (context, request, signal) =>
    purgeVolume(context, param(request, 'reference'), signal),
  );
  route('get', '/v1/settings', (context) => Promise.resolve(context.settings()));
  route('patch', '/v1/settings', (_context, request) => {
    const changes = Object.entries(parseBody(settingsBody, request)).map(([name, value]) => parseSetting(name, value));
    const change: SettingsRequest = Object.assign({}, ...changes);
    return node.changeSettings(change);
  });

  return app;
}

/** `df` must say what is wrong also while the node can't start. */
async function poolView(node: Node): Promise<PoolView> {
  const context = await node.ready(AbortSignal.timeout(answerMsMax));
  await refreshIfPossible(context);
  const view = await viewPool(context);
  return { ...view, message: node.problem() ?? view.message };
}

/** A pool that is away is shown by `df`; a listing goes on with the last figures. */
async function refreshIfPossible(context: Context): Promise<void> {
  await context.usage.refresh().catch(() => undefined);
}
