import { Gauge, Registry } from 'prom-client';

/** What Prometheus is told of this node's controller. */
export type Figures = {
  readonly isStoreUp: boolean;
  readonly isDockerUp: boolean;
  /** Of this node. */
  readonly workloads: { readonly running: number; readonly stopped: number; readonly unmade: number };
  /** Of the cluster, that are under way. */
  readonly moves: number;
  /** Containers that were started again since the program runs. */
  readonly revivals: number;
};

/** In Prometheus's text format, made when it asks. */
export async function figuresText(figures: Figures): Promise<string> {
  const registry = new Registry();
  const gauge = (name: string, help: string, labelNames: readonly string[] = []) =>
    new Gauge({ name: `flock_controller_${name}`, help, labelNames: [...labelNames], registers: [registry] });
  const up = gauge('up', '1 where the controller has answers from it', ['what']);
  up.set({ what: 'store' }, figures.isStoreUp ? 1 : 0);
  up.set({ what: 'docker' }, figures.isDockerUp ? 1 : 0);
  const workloads = gauge('workloads', "This node's containers that flock looks after; unmade: still to be made", [
    'wanted',
  ]);
  for (const [wanted, count] of Object.entries(figures.workloads)) workloads.set({ wanted }, count);
  gauge('moves', 'Moves of the cluster that are under way').set(figures.moves);
  gauge('revivals_total', 'Containers started again since the controller runs').set(figures.revivals);
  return await registry.metrics();
}
