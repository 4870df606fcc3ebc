import { randomBytes } from 'node:crypto';
import { addAbortSignal, Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import type { DockerEvent, Listed } from '../../controller/docker/source.ts';
import { FlockError } from '../../controller/model/errors.ts';
import { publishedBy } from '../../controller/model/published-ports.ts';
import type { Docker } from '../../controller/program/docker.ts';
import { type Changes, inspectAnswer } from './inspected.ts';

/** A Docker Engine in this process, as controllers see it, and what people and processes do to its containers. */
export type FakeEngine = Docker & {
  /** `docker create`, `docker run -d`. Answer the id. */
  add(name: string, changes?: Changes): string;
  run(name: string, changes?: Changes): string;
  /** Its process ends by itself. */
  crash(name: string, exitCode?: number): void;
  /** `docker stop`, `docker start`, `docker rm -f`. */
  personStops(name: string): void;
  personStarts(name: string): void;
  personRemoves(name: string): void;
  /** What is there, with Docker's word for it. */
  states(): Readonly<Record<string, string>>;
  all(): readonly FakeRow[];
  /** The machine loses its power: nothing runs, and nobody is told. */
  lose(): void;
  idOf(name: string): string;
  readonly images: Map<string, { readonly id: string; names: Set<string> }>;
  /** From now on containers can't be started, for this reason; null: they can. */
  refuseStarts(reason: string | null): void;
  refuseRemovals(reason: string | null): void;
  /** The names of what was started through the API, in order. */
  readonly started: string[];
  /** No answers, and the events end: as when Docker is restarted. */
  away(isAway: boolean): void;
};

type Fake = {
  readonly id: string;
  name: string;
  changes: Changes;
  state: { Status: string; ExitCode: number; Error: string };
  isStoppedByHand: boolean;
};

const notFound = (what: string) => new FlockError('docker-failed', `no such ${what}`, { status: 404 });

export type FakeRow = {
  readonly id: string;
  readonly name: string;
  readonly status: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly volumes: readonly string[];
  /** Its restart policy. */
  readonly policy: string;
  /** Docker starts it when it comes up. */
  readonly isStartedAtBoot: boolean;
};

export type FakeEngineOptions = {
  readonly newId?: () => string;
  /** Why a container with these volumes can't be started now; null: it can. */
  readonly refuses?: (container: { readonly id: string; readonly volumes: readonly string[] }) => string | null;
  readonly onStart?: (id: string) => void;
  /** Something has happened to a container. */
  readonly onChange?: () => void;
  /** It has ended by itself. */
  readonly onCrash?: (id: string) => void;
};

export function createFakeEngine(options: FakeEngineOptions = {}): FakeEngine {
  const { newId = () => randomBytes(32).toString('hex'), refuses = () => null, onStart = () => undefined } = options;
  const containers = new Map<string, Fake>();
  const networks = new Map<string, Readonly<Record<string, unknown>>>();
  const images: FakeEngine['images'] = new Map();
  const started: string[] = [];
  const listeners = new Set<{ readonly queue: DockerEvent[]; wake(): void }>();
  let isAway = false;
  let refusal: string | null = null;
  let removalRefusal: string | null = null;

  const find = (text: string) => containers.get(text) ?? [...containers.values()].find(({ name }) => name === text);
  function get(text: string): Fake {
    assertThere();
    const found = find(text);
    if (found === undefined) throw notFound(`container: ${text}`);
    return found;
  }
  function assertThere(): void {
    if (isAway) throw new Error('connect ECONNREFUSED /run/docker.sock');
  }
  function emit(id: string, action: string, signal: string | null = null): void {
    options.onChange?.();
    for (const listener of listeners) {
      listener.queue.push({ kind: 'changed', container: id, action, signal });
      listener.wake();
    }
  }
  function add(name: string, changes: Changes, status: string): string {
    if (find(name) !== undefined) throw new FlockError('docker-failed', `the name ${name} is in use`, { status: 409 });
    const id = newId();
    const config = { Hostname: id.slice(0, 12), ...changes.config };
    containers.set(id, {
      id,
      name,
      changes: { ...changes, config, id },
      state: { Status: status, ExitCode: 0, Error: '' },
      isStoppedByHand: false,
    });
    emit(id, 'create');
    return id;
  }
  function end(fake: Fake, exitCode: number): void {
    fake.state = { Status: 'exited', ExitCode: exitCode, Error: '' };
    emit(fake.id, 'die');
  }
  function start(fake: Fake): void {
    fake.state = { Status: 'running', ExitCode: 0, Error: '' };
    fake.isStoppedByHand = false;
    emit(fake.id, 'start');
    onStart(fake.id);
  }
  function volumesOf(fake: Fake): readonly string[] {
    const { Mounts } = answerOf(fake) as { readonly Mounts: readonly { readonly Name: string }[] };
    return Mounts.map(({ Name }) => Name);
  }
  function answerOf({ name, changes, state }: Fake): Readonly<Record<string, unknown>> {
    return inspectAnswer({ ...changes, name, state });
  }

  return {
    images,
    started,
    add: (name, changes = {}) => add(name, changes, 'created'),
    run(name, changes = {}) {
      const id = add(name, changes, 'created');
      start(get(id));
      return id;
    },
    crash(name, exitCode = 137) {
      const fake = get(name);
      end(fake, exitCode);
      options.onCrash?.(fake.id);
    },
    lose() {
      for (const fake of containers.values())
        if (fake.state.Status === 'running') fake.state = { Status: 'exited', ExitCode: 137, Error: '' };
      listeners.clear();
    },
    personStops(name) {
      const fake = get(name);
      fake.isStoppedByHand = true;
      emit(fake.id, 'kill', '15');
      end(fake, 143);
      emit(fake.id, 'stop');
    },
    personStarts: (name) => start(get(name)),
    personRemoves(name) {
      const { id } = get(name);
      containers.delete(id);
      emit(id, 'destroy');
    },
    states: () => Object.fromEntries([...containers.values()].map(({ name, state }) => [name, state.Status])),
    all: () =>
      [...containers.values()].map((fake) => {
        const { Config, HostConfig } = answerOf(fake) as {
          readonly Config: { readonly Labels: Readonly<Record<string, string>> };
          readonly HostConfig: { readonly RestartPolicy: { readonly Name: string } };
        };
        const { id, name, state } = fake;
        const policy = HostConfig.RestartPolicy.Name;
        const isDown = state.Status === 'exited';
        const isStartedAtBoot = isDown && (policy === 'always' || (policy !== 'no' && !fake.isStoppedByHand));
        const volumes = volumesOf(fake);
        return { id, name, status: state.Status, labels: Config.Labels, volumes, policy, isStartedAtBoot };
      }),
    idOf: (name) => get(name).id,
    refuseStarts(reason) {
      refusal = reason;
    },
    refuseRemovals(reason) {
      removalRefusal = reason;
    },
    away(next) {
      isAway = next;
      for (const listener of listeners) listener.wake();
    },

    async list(): Promise<readonly Listed[]> {
      assertThere();
      return [...containers.values()].map((fake) => {
        const { Config, Mounts, HostConfig, State, NetworkSettings } = answerOf(fake) as {
          Config: { Labels: Record<string, string> };
          Mounts: { Driver: string }[];
          HostConfig: { NetworkMode: string };
          State: { Running: boolean; Status: string };
          NetworkSettings: { Networks: Record<string, unknown> };
        };
        const isRunning = State.Running;
        return {
          id: fake.id,
          name: fake.name,
          labels: Config.Labels,
          volumeDrivers: Mounts.flatMap(({ Driver }) => Driver ?? []),
          state: State.Status,
          networkMode: HostConfig.NetworkMode,
          networks: Object.keys(NetworkSettings.Networks),
          ports: isRunning ? publishedBy({ create: { HostConfig } }) : [],
        };
      });
    },
    async inspect(text) {
      assertThere();
      const found = find(text);
      return found === undefined ? null : answerOf(found);
    },
    async *events(signal) {
      assertThere();
      const turn = { wake: () => {} };
      const listener = { queue: [] as DockerEvent[], wake: () => turn.wake() };
      listeners.add(listener);
      try {
        yield { kind: 'connected' };
        while (!signal.aborted) {
          assertThere();
          yield* listener.queue.splice(0);
          if (listener.queue.length > 0) continue;
          await new Promise<void>((resolve) => {
            turn.wake = resolve;
            signal.addEventListener('abort', () => resolve(), { once: true });
          });
        }
      } finally {
        listeners.delete(listener);
      }
    },
    async create(name, body) {
      assertThere();
      const {
        HostConfig,
        NetworkingConfig: _networks,
        Image,
        ...config
      } = body as Record<string, object> & { Image: string };
      const image = [...images.values()].find(({ id, names }) => id === Image || names.has(Image));
      if (image === undefined) throw notFound(`image: ${Image}`);
      for (const link of (HostConfig as { readonly Links?: readonly string[] | null }).Links ?? []) {
        const [other = ''] = link.split(':');
        if (find(other) === undefined)
          throw new FlockError('docker-failed', `could not get container for ${other}`, { status: 400 });
      }
      const mounts = (
        HostConfig as {
          Mounts: { Source: string; Target: string; VolumeOptions: { DriverConfig: { Name: string } } }[];
        }
      ).Mounts;
      return add(
        name,
        {
          config: { ...config, Image },
          hostConfig: HostConfig as object,
          mounts: mounts.map(({ Source, Target, VolumeOptions }) => ({
            ...{ Type: 'volume', Name: Source, Destination: Target, Driver: VolumeOptions.DriverConfig.Name, RW: true },
          })),
        },
        'created',
      );
    },
    async connect() {},
    async execute(id) {
      get(id);
      return { exitCode: 0, output: '' };
    },
    async start(id) {
      const fake = get(id);
      if (fake.state.Status === 'running') return;
      const reason = refusal ?? refuses({ id: fake.id, volumes: volumesOf(fake) });
      if (reason !== null) {
        fake.state = { Status: fake.state.Status, ExitCode: 128, Error: reason };
        throw new FlockError('docker-failed', reason, { status: 500 });
      }
      started.push(fake.name);
      start(fake);
    },
    async stop(id) {
      const fake = find(id);
      if (fake === undefined || fake.state.Status !== 'running') return;
      fake.isStoppedByHand = true;
      emit(id, 'kill', '15');
      end(fake, 143);
      emit(id, 'stop');
    },
    async kill() {},
    async remove(id) {
      assertThere();
      if (removalRefusal !== null) throw new FlockError('docker-failed', removalRefusal, { status: 500 });
      if (containers.delete(id)) emit(id, 'destroy');
    },
    async rename(id, name) {
      if (find(name) !== undefined)
        throw new FlockError('docker-failed', `the name ${name} is in use`, { status: 409 });
      get(id).name = name;
      emit(id, 'rename');
    },
    async setRestartPolicy(id, policy) {
      const fake = get(id);
      const hostConfig = { ...fake.changes.hostConfig, RestartPolicy: { Name: policy, MaximumRetryCount: 0 } };
      fake.changes = { ...fake.changes, hostConfig };
    },
    tail: async () => '',
    async network(name) {
      assertThere();
      return networks.get(name) ?? null;
    },
    async createNetwork(body) {
      networks.set(String(body['Name']), body);
    },
    async image(name) {
      assertThere();
      const found = [...images.values()].find(({ id, names }) => id === name || names.has(name));
      return found === undefined ? null : { Id: found.id };
    },
    async tagImage(id, name) {
      images.get(id)?.names.add(name);
    },
    async saveImage(id) {
      return Readable.from([Buffer.from(JSON.stringify({ id }))]);
    },
    async loadImage(from, signal) {
      const { id } = JSON.parse((await buffer(addAbortSignal(signal, from))).toString()) as { readonly id: string };
      images.set(id, { id, names: new Set() });
    },
  };
}
