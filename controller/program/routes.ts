import { Router } from 'express';
import type { WorkloadView } from '../model/controller-api.ts';
import { FlockError } from '../model/errors.ts';
import type { WorkloadDoc } from '../model/workload.ts';
import type { ClusterView } from './view.ts';

/** `GET /v1/workloads`: of all nodes, by name. */
export function workloadRoutes(view: Pick<ClusterView, 'seen' | 'fault'>): Router {
  const router = Router();
  router.get('/v1/workloads', (_request, response) => {
    const seen = view.seen();
    if (seen === null)
      throw new FlockError('not-ready', `the controller has not seen the store yet: ${view.fault() ?? 'try again'}`);
    const docs = [...seen.workloads.values()].map(({ doc }) => doc);
    response.json(docs.toSorted((a, b) => (a.name < b.name ? -1 : 1)).map(viewOf));
  });
  return router;
}

function viewOf(doc: WorkloadDoc): WorkloadView {
  const { id, name, service, node, epoch, wanted, failover, volumes, obstacles, move } = doc;
  return {
    ...{ id, name, service, node, epoch, wanted, failover, move },
    volumes: volumes.map((volume) => volume.name),
    obstacles: [...obstacles],
  };
}
