import express, { Router } from 'express';
import type { Logger } from 'pino';
import { Gauge, Registry } from 'prom-client';
import { webPorts } from '../controller/model/host-ports.ts';
import type { Agent } from './cluster/agent.ts';
import type { Context } from './volumes/context.ts';

/**
 * What Prometheus is told, in its text format, made when it asks: the figures that `flockctl status` and `replica ls` show, for alarms.
 */
export async function metricsText(context: Context | null, agent: Agent | null): Promise<string> {
  const registry = new Registry();
  const gauge = (name: string, help: string, labelNames: readonly string[] = []) =>
    new Gauge({ name: `flock_${name}`, help, labelNames: [...labelNames], registers: [registry] });

  gauge('up', '1 where the node has started and its pool can be used').set(context === null ? 0 : 1);
  if (context !== null) {
    const volumes = gauge('volumes', 'Datasets of this node, by what they are to it', ['phase']);
    const used = gauge('volume_used_bytes', 'Live data of a volume', ['volume']);
    const mounts = gauge('volume_mounts', 'Mounts of a volume that Docker has not ended', ['volume']);
    for (const record of context.state.all()) {
      volumes.inc({ phase: record.phase.kind });
      if (record.phase.kind !== 'ready') continue;
      const usage = context.usage.of(record.id);
      if (usage !== null) used.set({ volume: record.name }, usage.usedBytes);
      const uses = context.state.uses(record.id);
      mounts.set(
        { volume: record.name },
        uses.reduce((sum, { count }) => sum + count, 0),
      );
      if (agent !== null) addCopies(record.name, agent.copies(record.id));
    }
    const status = await context.storage.pool();
    gauge('pool_writable', '1 where the pool works and takes writes').set(status.state === 'online' ? 1 : 0);
    const pool = gauge('pool_bytes', 'Size and free space of the pool', ['kind']);
    if ('sizeBytes' in status) {
      pool.set({ kind: 'size' }, status.sizeBytes);
      pool.set({ kind: 'free' }, status.freeBytes);
    }
    if (agent !== null) {
      const frozen = context.state.all().filter(({ id }) => agent.isFrozen(id)).length;
      gauge('frozen_volumes', 'Volumes whose users are stopped because ownership can not be proven').set(frozen);
    }
  }
  if (agent !== null) {
    gauge('lease_proven_seconds', 'For how long from now this node can prove its session').set(
      agent.provenForMs() / 1000,
    );
    const nodes = gauge('node_up', '1 where the node lives, as this one sees it', ['node']);
    for (const { doc, alive } of agent.directory.nodes()) nodes.set({ node: doc.name }, alive === null ? 0 : 1);
  }
  return await registry.metrics();

  function addCopies(volume: string, copies: ReturnType<Agent['copies']>): void {
    const lag = ensure('replica_lag_seconds', 'Age of what a copy has, where its volume has something newer');
    const inSync = ensure('replica_in_sync', '1 where a copy has everything');
    for (const { node, lagMs, state } of copies) {
      if (lagMs !== null) lag.set({ volume, node }, lagMs / 1000);
      inSync.set({ volume, node }, state === 'in-sync' ? 1 : 0);
    }
  }

  function ensure(name: string, help: string): Gauge {
    const present = registry.getSingleMetric(`flock_${name}`);
    return present instanceof Gauge ? present : gauge(name, help, ['volume', 'node']);
  }
}

/** On loopback only: whoever reads it learns the names of volumes. */
const address = { host: '127.0.0.1', port: webPorts.plugin } as const;

export function metricsRoutes(text: () => Promise<string>): Router {
  const router = Router();
  router.get('/metrics', async (_request, response) => {
    response.type('text/plain; version=0.0.4').send(await text());
  });
  return router;
}

/** Serves Prometheus on this host until the signal fires. A port that is taken is logged, and nothing else. */
export function serveMetrics(text: () => Promise<string>, signal: AbortSignal, log: Logger): void {
  const app = express().disable('x-powered-by').use(metricsRoutes(text));
  const server = app.listen(address.port, address.host);
  server.on('error', (error) =>
    log.error(
      { event: 'metrics.not-served', ...address, reason: error.message },
      'Prometheus gets nothing from this node',
    ),
  );
  signal.addEventListener('abort', () => server.close(), { once: true });
}
