import type { ServiceName } from '../model/names.ts';

/** What gate and HAProxy tell of what they have served, for metrics and the access log. */
export type Observation = {
  /** The id of the route or `link ...`; null: none led anywhere. */
  readonly route: string | null;
  readonly service: ServiceName | null;
  readonly client: string;
  readonly durationMs: number;
  /** How many like it it stands for: of what HAProxy serves only some are told. */
  readonly weight: number;
  /** Null: a connection. A request without an answer, because its client has left, has the status 499, as nginx has it. */
  readonly request: {
    readonly method: string;
    readonly host: string;
    readonly path: string;
    readonly status: number;
  } | null;
};

/** Called once for each; must not throw. */
export type Observe = (observation: Observation) => void;

export const clientLeft = 499;
