import Docker from 'dockerode';
import { z } from 'zod';
import type { PublishedPort } from '../model/published-ports.ts';
import { type ContainerEvent, eventFilters, eventOf, linesOf } from './events.ts';

export type { ContainerEvent } from './events.ts';

/**
 * What Docker Engine says of its containers. Each call has its own end; failures are whatever dockerode throws, and mean that
 * Docker is away.
 */
export type DockerSource = {
  /** All containers, running or not. */
  list(): Promise<readonly Listed[]>;
  /** The answer as it came, for a schema of the asker's; null: the container is gone. */
  inspect(id: string): Promise<unknown>;
  /**
   * First `connected`, from when on no change is missed, then the containers that something happens to. Ends or throws with the
   * connection, and ends when the signal fires.
   */
  events(signal: AbortSignal): AsyncIterable<DockerEvent>;
};

export type DockerEvent = { readonly kind: 'connected' } | ({ readonly kind: 'changed' } & ContainerEvent);

export type Listed = {
  readonly id: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Of its volumes, each as often as it is used. */
  readonly volumeDrivers: readonly string[];
  /** `running`, `exited` and so on, as Docker calls it. */
  readonly state: string;
  /** As `docker run --network` has it; `container:ID`: it is in that container's network. */
  readonly networkMode: string;
  /** Names of all networks that it is in, Docker's own among them. */
  readonly networks: readonly string[];
  /** Published now, so none of a container that does not run. */
  readonly ports: readonly PublishedPort[];
};

const answerMsMax = 10_000;

const listedSchema = z.array(
  z.object({
    Id: z.string(),
    Names: z.array(z.string()).nullish(),
    Labels: z.record(z.string(), z.string()).nullish(),
    Mounts: z.array(z.object({ Driver: z.string().nullish() })).nullish(),
    // Only looked at before a move, so what is odd here must not keep the rest from being seen.
    State: z.string().catch(''),
    HostConfig: z
      .object({ NetworkMode: z.string().catch('') })
      .nullish()
      .catch(null),
    NetworkSettings: z
      .object({ Networks: z.record(z.string(), z.unknown()).nullish() })
      .nullish()
      .catch(null),
    Ports: z
      .array(
        z.object({
          IP: z.string().catch(''),
          PublicPort: z.number().nullish().catch(null),
          Type: z.string().catch('tcp'),
        }),
      )
      .nullish()
      .catch(null),
  }),
);

export function createDockerSource(socketPath: string): DockerSource {
  const docker = new Docker({ socketPath });
  const limited = () => ({ abortSignal: AbortSignal.timeout(answerMsMax) });
  return {
    async list() {
      const answer = listedSchema.parse(await docker.listContainers({ all: true, ...limited() }));
      return answer.map(({ Id: id, Names, Labels, Mounts, State: state, HostConfig, NetworkSettings, Ports }) => ({
        id,
        name: nameOf(Names ?? []),
        labels: Labels ?? {},
        volumeDrivers: (Mounts ?? []).flatMap(({ Driver }) => Driver ?? []),
        state,
        networkMode: HostConfig?.NetworkMode ?? '',
        networks: Object.keys(NetworkSettings?.Networks ?? {}),
        ports: (Ports ?? []).flatMap(({ IP: ip, PublicPort: port, Type: protocol }) =>
          port == null ? [] : [{ ip, port, protocol }],
        ),
      }));
    },
    async inspect(id) {
      try {
        return await docker.getContainer(id).inspect(limited());
      } catch (error) {
        if (error instanceof Error && 'statusCode' in error && error.statusCode === 404) return null;
        throw error;
      }
    },
    async *events(signal) {
      const tooLate = new AbortController();
      const timer = setTimeout(() => tooLate.abort(new Error('no answer to the question for events')), answerMsMax);
      const ended = AbortSignal.any([signal, tooLate.signal]);
      try {
        const stream = await docker.getEvents({ abortSignal: ended, filters: JSON.stringify(eventFilters) });
        clearTimeout(timer);
        yield { kind: 'connected' };
        for await (const line of linesOf(stream as AsyncIterable<Buffer>)) {
          const event = eventOf(line);
          if (event !== null) yield { kind: 'changed', ...event };
        }
      } catch (error) {
        if (!signal.aborted) throw error;
      } finally {
        clearTimeout(timer);
      }
    },
  };
}

/** Those of Docker's old links have a second slash. */
function nameOf(names: readonly string[]): string {
  return names.map((name) => name.replace(/^\//, '')).find((name) => !name.includes('/')) ?? '';
}
