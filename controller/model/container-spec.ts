import type { VolumeName } from './names.ts';
import type { ContainerSpec, WorkloadDoc, WorkloadId } from './workload.ts';

/** What a workload's document says of its container, as Docker describes it. */
export type Described = Pick<WorkloadDoc, 'name' | 'service' | 'failover' | 'spec' | 'after' | 'obstacles'> & {
  /** Names of its flock volumes, sorted, each once. */
  readonly volumes: readonly VolumeName[];
};

/**
 * Which workload a container that flock has made was made for. Such a container is never taken for a new workload. Not below "flock.":
 * those labels are the users'.
 */
export const workloadLabel = 'flock-workload';

/** The body of `POST /containers/create`. `image`: a name or an id, whatever means the image on this host. */
export function createBodyOf(
  spec: ContainerSpec,
  made: { readonly workload: WorkloadId; readonly image: string },
): Readonly<Record<string, unknown>> {
  const labels = spec.create['Labels'];
  return {
    ...spec.create,
    Image: made.image,
    Labels: { ...(typeof labels === 'object' ? labels : {}), [workloadLabel]: made.workload },
  };
}
