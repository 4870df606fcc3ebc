import { hostname } from 'node:os';
import type { Listed } from '../docker/source.ts';
import { type Described, describeContainer } from '../model/container-spec.ts';
import {
  type InspectedNetwork,
  type InspectedWorkload,
  inspectedNetworkSchema,
  inspectedWorkloadSchema,
} from '../model/inspected.ts';
import type { WorkloadDoc } from '../model/workload.ts';
import { linksOf } from '../model/workload-labels.ts';
import type { Docker } from './docker.ts';

/** This host's containers that flock looks after, with what their documents are to say of them. */
export type LocalContainer = { readonly inspected: InspectedWorkload; readonly described: Described };

export type LocalContainers = {
  /** `workloads`: of all nodes. Rejects while Docker does not answer. */
  describe(
    containers: readonly InspectedWorkload[],
    workloads: readonly WorkloadDoc[],
  ): Promise<readonly LocalContainer[]>;
  /** One of them as it is now, with the ports of its own labels only; null: it is gone, or can't be read. */
  describeOne(id: string): Promise<Pick<Described, 'name' | 'spec'> | null>;
};

export function createLocalContainers(docker: Pick<Docker, 'inspect' | 'list' | 'network'>): LocalContainers {
  /** By id: one that was made anew has another. */
  let known: ReadonlyMap<string, InspectedNetwork | null> = new Map();

  async function networksOf(containers: readonly InspectedWorkload[]): Promise<ReadonlyMap<string, InspectedNetwork>> {
    const used = new Map(
      containers.flatMap(({ NetworkSettings }) =>
        Object.entries(NetworkSettings.Networks ?? {}).map(
          ([name, { NetworkID }]) => [NetworkID || name, name] as const,
        ),
      ),
    );
    const next = new Map<string, InspectedNetwork | null>();
    for (const id of used.keys()) {
      // What is gone may be made again.
      const before = known.get(id) ?? null;
      next.set(id, before ?? inspectedNetworkSchema.safeParse(await docker.network(id)).data ?? null);
    }
    known = next;
    return new Map([...next].flatMap(([id, network]) => (network === null ? [] : [[used.get(id) ?? id, network]])));
  }

  const locals: LocalContainers = {
    async describe(containers, workloads) {
      const networks = await networksOf(containers);
      const named = containers.some(
        ({ HostConfig }) => (HostConfig.VolumesFrom ?? []).length + (HostConfig.Links ?? []).length > 0,
      );
      const listed = named ? await docker.list() : [];
      const names = new Set(containers.map(({ Name }) => Name.replace(/^\//, '')));
      const links = [
        ...workloads.map(({ spec }) => labelsOf(spec.create)),
        ...containers.map(({ Config }) => Config.Labels ?? {}),
      ].flatMap(linksOf);
      const facts = {
        networks,
        // This program is on the host's network, too.
        hostName: hostname(),
        nameOf: (text: string) => nameOf(listed, text),
        isWorkload: (name: string) => names.has(name),
        linkedPorts: (service: string) => links.filter((link) => link.service === service).map(({ port }) => port),
      };
      return containers.map((inspected) => ({ inspected, described: describeContainer(inspected, facts) }));
    },
    async describeOne(id) {
      const { data } = inspectedWorkloadSchema.safeParse(await docker.inspect(id));
      const [found] = data === undefined ? [] : await locals.describe([data], []);
      return found?.described ?? null;
    },
  };
  return locals;
}

function nameOf(listed: readonly Listed[], text: string): string {
  const found = listed.find(({ name }) => name === text) ?? listed.find(({ id }) => id.startsWith(text));
  return found?.name ?? text;
}

function labelsOf(create: WorkloadDoc['spec']['create']): Readonly<Record<string, string>> {
  const labels = create['Labels'];
  return typeof labels === 'object' && labels !== null ? (labels as Readonly<Record<string, string>>) : {};
}
