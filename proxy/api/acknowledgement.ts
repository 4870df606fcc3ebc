import type { NodeName } from '../../controller/model/names.ts';
import type { DrainedNodeView, PausedNodeView } from '../../controller/model/proxy-api.ts';
import type { Documents } from '../model/collect.ts';
import type { ProxyNodeDoc } from '../model/keys.ts';

/** What the nodes' documents say of a pause, a drain, a release. Pure. */

/** Those whose proxies have to agree: the living ones, and the asked one whatever the store says of it. */
export function livingNodes(members: Documents['members'], self: NodeName): readonly NodeName[] {
  const others = [...(members ?? [])].filter(([name, { alive }]) => alive && name !== self).map(([name]) => name);
  return [self, ...others].toSorted();
}

/**
 * Whether each node holds the pause. A living node without a document may be one whose proxy is just starting, with a table of
 * before, so it counts as not done.
 */
export function pausedNodes(
  pause: string,
  living: readonly NodeName[],
  documents: readonly ProxyNodeDoc[],
): readonly PausedNodeView[] {
  return living.map((name) => {
    const doc = documents.find((one) => one.name === name);
    if (doc === undefined)
      return { name, done: false, problem: 'no proxy has ever run there: "make up" on that host starts it' };
    const done = doc.pauses.includes(pause);
    return { name, done, problem: done ? null : (firstProblem(doc) ?? silent) };
  });
}

const silent = 'its proxy says nothing of it: does the container flock-proxy run there?';

/** Whether each node has let the pause go. */
export function releasedNodes(
  pause: string,
  living: readonly NodeName[],
  documents: readonly ProxyNodeDoc[],
): readonly PausedNodeView[] {
  return living.map((name) => {
    const doc = documents.find((one) => one.name === name);
    const done = doc === undefined || !doc.pauses.includes(pause);
    return { name, done, problem: done || doc === undefined ? null : firstProblem(doc) };
  });
}

/** The reports of one drain, and the nodes that have not sent theirs. */
export function drainedNodes(
  drain: { readonly pause: string; readonly untilMs: number },
  living: readonly NodeName[],
  documents: readonly ProxyNodeDoc[],
): { readonly reports: readonly DrainedNodeView[]; readonly missing: readonly PausedNodeView[] } {
  const reports: DrainedNodeView[] = [];
  const missing: PausedNodeView[] = [];
  for (const name of living) {
    const doc = documents.find((one) => one.name === name);
    const report = doc?.drains.find(({ pause, untilMs }) => pause === drain.pause && untilMs === drain.untilMs);
    if (report === undefined)
      missing.push({ name, done: false, problem: doc === undefined ? null : firstProblem(doc) });
    else {
      const { requests, tunnels, tunnelsClosed } = report;
      reports.push({ name, requests, tunnels, tunnelsClosed });
    }
  }
  return { reports, missing };
}

/** The nodes that have not done it, each with its reason, for an error. */
export function describeMissing(nodes: readonly PausedNodeView[]): string {
  const late = nodes.filter(({ done }) => !done);
  const list = late.slice(0, namesMax).map(({ name, problem }) => (problem === null ? name : `${name} (${problem})`));
  return `${list.join(', ')}${late.length > namesMax ? ` and ${late.length - namesMax} more` : ''}`;
}

const namesMax = 8;

/** A problem of a layer keeps pauses from being held; one of a listener does not, but is better than nothing. */
function firstProblem({ problems }: ProxyNodeDoc): string | null {
  const [first] = Object.entries(problems).toSorted(
    ([a], [b]) => Number(b.startsWith('layer ')) - Number(a.startsWith('layer ')),
  );
  return first === undefined ? null : `${first[0]}: ${first[1]}`;
}
