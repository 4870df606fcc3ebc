import type { Readable } from 'node:stream';
import type { DockerSource } from '../docker/source.ts';

/**
 * Docker Engine of this host, as far as controllers use it. Each call has an end of its own. Failures are FlockErrors:
 * `docker-failed` with Docker's words (facts: `status`, Docker's HTTP status, null where it did not answer).
 */
export type Docker = DockerSource & {
  /** Makes a container (the body of `POST /containers/create`, its first network included). Answers its id. Not started. */
  create(name: string, body: Readonly<Record<string, unknown>>): Promise<string>;
  /** Connects a container with a further network; `endpoint`: an EndpointSettings. Connected already is fine. */
  connect(network: string, id: string, endpoint: unknown): Promise<void>;
  /** Running already is fine. Mounts its volumes, so it may take as long as they do. */
  start(id: string): Promise<void>;
  /** SIGTERM, or what the container asks for, and SIGKILL after so many seconds. Stopped or gone already is fine. */
  stop(id: string, seconds: number): Promise<void>;
  /** Stopped or gone already is fine. */
  kill(id: string, signal: string): Promise<void>;
  /** Also while it runs; anonymous volumes stay. Gone already is fine. */
  remove(id: string): Promise<void>;
  rename(id: string, name: string): Promise<void>;
  /** Docker starts it again by itself never more, or always ... */
  setRestartPolicy(id: string, policy: 'no' | 'always' | 'unless-stopped' | 'on-failure'): Promise<void>;
  /** The answer as it came; null: there is none. */
  network(nameOrId: string): Promise<unknown>;
  createNetwork(body: Readonly<Record<string, unknown>>): Promise<void>;
  /** By id (`sha256:...`) or name. The answer as it came; null: it is not here. */
  image(nameOrId: string): Promise<unknown>;
  /** `name`: as in `docker tag`, with its tag. */
  tagImage(id: string, name: string): Promise<void>;
  /** What `docker save` writes. */
  saveImage(id: string, signal: AbortSignal): Promise<Readable>;
  /** Takes what `docker save` wrote. Resolves when Docker has all of it. */
  loadImage(from: Readable, signal: AbortSignal): Promise<void>;
};
