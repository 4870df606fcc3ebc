import type { NodeName } from './names.ts';
import { conflictOf, type PublishedPort, publishedBy } from './published-ports.ts';
import type { WorkloadDoc } from './workload.ts';

/**
 * What keeps a workload's container from being made on a node beside those that are there: its name, or a port of the host. `there`: of
 * that node, as far as flock looks after them; what else runs there is seen there. Pure.
 */
export function clashesOf(
  workload: Pick<WorkloadDoc, 'id' | 'name' | 'spec' | 'wanted'>,
  there: readonly WorkloadDoc[],
  node: NodeName,
): readonly string[] {
  const { id, name, spec, wanted } = workload;
  const others = there.filter((one) => one.id !== id);
  const isNameTaken = others.some((one) => one.name === name);
  const own = wanted === 'running' ? publishedBy(spec) : [];
  const ports =
    own.length === 0
      ? []
      : others
          .filter((other) => other.wanted === 'running')
          .flatMap((other) => {
            const taken = conflictOf(own, publishedBy(other.spec));
            return taken === null ? [] : [portTaken(name, taken, `container ${other.name}`, node)];
          });
  return [
    ...(isNameTaken ? [`there is another container ${name} on ${node}: rename or remove one of them`] : []),
    ...ports,
  ];
}

export function portTaken(name: string, { port, protocol }: PublishedPort, other: string, node: NodeName): string {
  return `container ${name} publishes port ${port}/${protocol}, which ${other} has on ${node}: stop that one, or publish another port`;
}
