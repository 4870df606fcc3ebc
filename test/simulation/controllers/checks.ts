import { workloadLabel } from '../../../controller/model/container-spec.ts';
import { isOver } from '../../../controller/model/move.ts';
import { workloadIdFor } from '../../../controller/model/workload.ts';
import type { FakeRow } from '../../support/fake-docker.ts';
import type { Host } from './host.ts';
import { movesOf, volumesOf, type World, workloadsOf } from './world.ts';

/** What is not yet as it must be once nothing has gone wrong for a while; empty: all is well. */
export function problemsOf(world: World): readonly string[] {
  const { store, scheduler } = world;
  const open = movesOf(store).filter((doc) => !isOver(doc));
  const held = [...world.pauses].filter(([, untilMs]) => untilMs > scheduler.nowMs());
  return [
    ...open.map(({ id, step }) => `move ${id} is at ${step}`),
    ...held.map(([service]) => `${service} is held`),
    ...workloadProblems(world),
    ...untouchedProblems(world),
  ];
}

const idOf = ({ id, labels }: FakeRow) => labels[workloadLabel] ?? workloadIdFor(id);

function workloadProblems(world: World): readonly string[] {
  const docs = workloadsOf(world.store);
  const rows = world.hosts.flatMap((host) => host.engine.all().map((row) => ({ host, row })));
  const owners = new Map(volumesOf(world.store).map(({ id, owner }) => [id, owner]));
  const byId = new Map<string, (typeof docs)[number]>(docs.map((doc) => [doc.id, doc]));
  return [
    ...docs.flatMap((doc) => {
      const mine = rows.filter(({ row }) => idOf(row) === doc.id);
      const running = mine.filter(({ row }) => row.status === 'running');
      const places = running.map(({ host }) => host.name).join();
      const foreign = doc.volumes.filter(({ id }) => owners.get(id) !== doc.node);
      return [
        ...(doc.move !== null ? [`${doc.name} is part of move ${doc.move}`] : []),
        ...(doc.wanted === 'running' && !(running.length === 1 && running[0]?.row.id === doc.containerId)
          ? [`${doc.name} is to run on ${doc.node}, and runs on ${places || 'no host'}`]
          : []),
        ...(doc.wanted === 'stopped' && running.length > 0
          ? [`${doc.name} is to be stopped, and runs on ${places}`]
          : []),
        ...(doc.wanted === 'running' && foreign.length > 0
          ? [
              `${doc.name} is on ${doc.node}, its volume ${foreign[0]?.name} on ${owners.get(foreign[0]?.id ?? ('' as never))}`,
            ]
          : []),
      ];
    }),
    ...rows.flatMap(({ host, row }) => strayProblem(host, row, byId.get(idOf(row)))),
  ];
}

function strayProblem(
  host: Host,
  row: FakeRow,
  doc: { readonly containerId: string | null } | undefined,
): readonly string[] {
  if (doc?.containerId === row.id || /\.left-\d+/.test(row.name)) return [];
  return [`container ${row.name} (${row.status}) lies about on ${host.name}`];
}

/** M6, the other way round: what nobody has stopped is to run. */
function untouchedProblems(world: World): readonly string[] {
  return workloadsOf(world.store)
    .filter(({ name, wanted }) => wanted === 'stopped' && !world.touched.has(name.replace(/\.left-.*/, '')))
    .map(({ name, node }) => `${name} on ${node} is to be stopped, though nobody has stopped it`);
}
