import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { InFlight } from './gate/services.ts';

/** What Prometheus is told: what was served, as it happens, and the state of everything, when it asks. */
export type ProxyMetrics = {
  /** `route`: as `routes` calls it, or its id. */
  observeRequest(
    route: string | null,
    service: string | null,
    status: number,
    seconds: number,
    /** How many requests it stands for. */
    weight: number,
  ): void;
  observeConnection(route: string | null, service: string | null): void;
  /** What routes and links are called for people, by id. Others are forgotten once they have been told a last time. */
  setRoutes(names: ReadonlyMap<string, string>): void;
  /** In Prometheus's text format. */
  text(): Promise<string>;
};

export type Figures = {
  /** Of the newest table. */
  readonly generation: number;
  /** Of the newest table that all layers serve. */
  readonly servedGeneration: number;
  readonly isStoreUp: boolean;
  readonly isDockerUp: boolean;
  /** By layer, listener, certificate ... */
  readonly problems: number;
  /** Layers that could not be brought to the table at all. */
  readonly layerProblems: readonly string[];
  readonly services: readonly ServiceFigures[];
};

export type ServiceFigures = {
  readonly name: string;
  readonly isPaused: boolean;
  readonly backends: number;
  /** Null: it was not asked, there are too many services. */
  readonly inFlight: InFlight | null;
};

const bucketsSeconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10];
/** Routes with figures of their own; what comes after goes to one called "other": Prometheus bears only so many series. */
const routesMax = 1_000;
const none = 'none';
const other = 'other';

export function createProxyMetrics(figures: () => Promise<Figures>): ProxyMetrics {
  const registry = new Registry();
  const counter = <Label extends string>(name: string, help: string, labelNames: readonly Label[]) =>
    new Counter({ name: `flock_proxy_${name}`, help, labelNames: [...labelNames], registers: [registry] });
  const histogram = (name: string, help: string) =>
    new Histogram({
      name: `flock_proxy_${name}`,
      help,
      labelNames: ['route', 'service'] as const,
      buckets: bucketsSeconds,
      registers: [registry],
    });
  const gauge = <Label extends string>(name: string, help: string, labelNames: readonly Label[]) =>
    new Gauge({ name: `flock_proxy_${name}`, help, labelNames: [...labelNames], registers: [registry] });

  const requests = counter(
    'requests_total',
    'Requests that were answered; those of HAProxy are reckoned up from the ones that it tells of',
    ['route', 'service', 'status'],
  );
  const seconds = histogram(
    'request_seconds',
    'From the headers of a request to the end of its answer; of HAProxy’s requests one in 16, all with the access log',
  );
  const connections = counter('connections_total', 'TCP connections of the gate that have ended', ['route', 'service']);
  const state = createState(gauge);
  /** What was counted, so that it can be forgotten. */
  const counted = new Map<string, Map<string, Set<string>>>();
  let names: ReadonlyMap<string, string> = new Map();
  let current: ReadonlySet<string> = new Set();

  function labelsOf(id: string | null, name: string | null): { readonly route: string; readonly service: string } {
    const service = name ?? none;
    const text = id === null ? none : (names.get(id) ?? id);
    const route = counted.has(text) || counted.size < routesMax ? text : other;
    const services = counted.get(route) ?? new Map<string, Set<string>>();
    counted.set(route, services);
    if (!services.has(service)) services.set(service, new Set());
    return { route, service };
  }

  function forget(route: string): void {
    for (const [service, statuses] of counted.get(route) ?? []) {
      for (const status of statuses) requests.remove({ route, service, status });
      seconds.remove({ route, service });
      connections.remove({ route, service });
    }
    counted.delete(route);
  }

  let making: Promise<string> | null = null;
  async function make(): Promise<string> {
    state(await figures());
    const text = await registry.metrics();
    for (const route of [...counted.keys()]) if (!current.has(route)) forget(route);
    return text;
  }

  return {
    observeRequest(id, name, code, duration, weight) {
      const labels = labelsOf(id, name);
      const status = String(code);
      counted.get(labels.route)?.get(labels.service)?.add(status);
      requests.inc({ ...labels, status }, weight);
      seconds.observe(labels, duration);
    },
    observeConnection(id, name) {
      connections.inc(labelsOf(id, name));
    },
    setRoutes(next) {
      names = next;
      current = new Set([...next.values(), none, other]);
    },
    text() {
      // One look for all who ask meanwhile: it takes turns with changes of the layers.
      making ??= make().finally(() => {
        making = null;
      });
      return making;
    },
  };
}

/** Sets the gauges, which are made anew each time: a service that is gone has none. */
function createState(
  gauge: <Label extends string>(name: string, help: string, labels: readonly Label[]) => Gauge<Label>,
): (figures: Figures) => void {
  const generation = gauge('table_generation', 'Of the newest table, and of the newest that all layers serve', [
    'what',
  ]);
  const up = gauge('up', '1 where the proxy has answers from it', ['what']);
  const problems = gauge('problems', 'Listeners, certificates and others that do not work on this node', []);
  const layers = gauge('layer_problem', '1 for a layer that could not be brought to the table', ['layer']);
  const paused = gauge('service_paused', '1 while new requests and connections are held', ['service']);
  const backends = gauge('service_backends', 'Healthy containers', ['service']);
  const running = gauge('service_in_flight', 'Requests and tunnels that run, and what is held', ['service', 'kind']);
  return (figures) => {
    for (const one of [layers, paused, backends, running]) one.reset();
    generation.set({ what: 'newest' }, figures.generation);
    generation.set({ what: 'served' }, figures.servedGeneration);
    up.set({ what: 'store' }, figures.isStoreUp ? 1 : 0);
    up.set({ what: 'docker' }, figures.isDockerUp ? 1 : 0);
    problems.set(figures.problems);
    for (const layer of figures.layerProblems) layers.set({ layer }, 1);
    for (const { name: service, isPaused, backends: count, inFlight } of figures.services) {
      paused.set({ service }, isPaused ? 1 : 0);
      backends.set({ service }, count);
      if (inFlight === null) continue;
      for (const kind of ['requests', 'tunnels', 'held'] as const) running.set({ service, kind }, inFlight[kind]);
    }
  };
}
