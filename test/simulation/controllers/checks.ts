import { keys } from '../../../controller/model/cluster.ts';
import { workloadLabel } from '../../../controller/model/container-spec.ts';
import { isOver } from '../../../controller/model/move.ts';
import { type WorkloadDoc, workloadIdFor } from '../../../controller/model/workload.ts';
import type { FakeRow } from '../../support/fake-docker.ts';
import type { Host } from './host.ts';
import { movesOf, volumesOf, type World, workloadsOf } from './world.ts';

/** `rule`: of docs/design.md, section 9, or its words. */
export type Problem = { readonly rule: string; readonly text: string };

type Place = { readonly host: Host; readonly row: FakeRow };

/** What is not yet as it must be once nothing has gone wrong for a while; empty: all is well. */
export function problemsOf(world: World): readonly Problem[] {
  const { store, scheduler, hosts, pauses, touched } = world;
  const docs = workloadsOf(store);
  const places = hosts.flatMap((host) => host.engine.all().map((row) => ({ host, row })));
  const owners = new Map<string, string>(volumesOf(store).map(({ id, owner }) => [id, owner]));
  const problems: Problem[] = [];
  const add = (is: boolean, rule: string, text: string) => void (is && problems.push({ rule, text }));

  const locked = new Set(store.entries().flatMap(({ key, session }) => (session === null ? [] : [key])));
  for (const { name } of hosts)
    for (const key of [keys.alive(name), keys.controller(name)])
      add(!locked.has(key), 'all are back', `nobody has ${key}`);
  for (const { id, step } of movesOf(store).filter((doc) => !isOver(doc)))
    add(true, 'moves end', `move ${id} is at ${step}`);
  for (const [service, untilMs] of pauses) add(untilMs > scheduler.nowMs(), 'M5', `${service} is held`);
  for (const doc of docs) {
    const { name, node, wanted, move, volumes } = doc;
    const running = places.filter(({ row }) => row.status === 'running' && idOf(row) === doc.id);
    const on = running.map(({ host }) => host.name).join() || 'no host';
    const isThere = running.length === 1 && running[0]?.row.id === doc.containerId;
    add(move !== null, 'moves end', `${name} is part of move ${move}`);
    add(wanted === 'running' && !isThere, 'M1', `${name} is to run on ${node}, and runs on ${on}`);
    add(wanted === 'stopped' && running.length > 0, 'M6', `${name} is to be stopped, and runs on ${on}`);
    for (const volume of wanted === 'running' ? volumes : [])
      add(owners.get(volume.id) !== node, 'M3', `${name} is on ${node}, its volume on ${owners.get(volume.id)}`);
    const isTouched = touched.has(name.replace(/\.left-.*/, ''));
    add(wanted === 'stopped' && !isTouched, 'M6', `${name} is to be stopped, though nobody has stopped it`);
  }
  for (const place of places) add(!touched.has(place.row.name) && liesAbout(place, docs), 'put away', lying(place));
  return problems;
}

export const idOf = ({ id, labels }: FakeRow) => labels[workloadLabel] ?? workloadIdFor(id);

/** What was put away is kept, under another name. */
function liesAbout({ row }: Place, docs: readonly WorkloadDoc[]): boolean {
  return !/\.left-\d+/.test(row.name) && docs.find(({ id }) => id === idOf(row))?.containerId !== row.id;
}

const lying = ({ host, row }: Place) => `container ${row.name} (${row.status}) lies about on ${host.name}`;
