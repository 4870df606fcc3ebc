import { reach } from '../docker/reach.ts';
import { summaryOf } from '../model/move-summary.ts';
import type { Home, Part } from '../program/home.ts';
import { createLocalContainers } from '../program/local.ts';
import { createMoveRoutes } from './api.ts';
import { createPluginCalls, createProxyCalls } from './calls.ts';
import { createDrainer } from './drainer.ts';
import { createMoveFigures } from './figures.ts';
import { createMover } from './mover.ts';
import type { MoveTools } from './ports.ts';
import { createPreflight, preflightRouter } from './preflight.ts';
import { createRecords } from './records.ts';

/** Moves and drains, as a part of the controller's program. */
export function createMovesPart(home: Home): Part {
  const { node, clusterId, store, docker, images, maker, events, clock, view, paths, net } = home;
  const log = home.log.child({ part: 'moves' });
  const tools: MoveTools = {
    ...{ node, store, docker, images, maker, clock, log, reach, net },
    locals: createLocalContainers(docker),
    plugin: createPluginCalls(paths.pluginSocket),
    proxy: createProxyCalls(paths.proxySocket),
  };
  const figures = createMoveFigures();
  const records = createRecords({
    ...{ store, clock, log },
    onEnd(doc) {
      figures.ended(doc);
      events.tell(
        doc.failure === null ? 'move-done' : 'move-failed',
        doc.service,
        `${summaryOf(doc)} (move ${doc.id})`,
      );
    },
  });
  const mover = createMover({ tools, records, view });
  const begin = { store, view, events, clock };
  const looking = { node, store, docker, maker, net, plugin: tools.plugin, image: docker.image };
  const preflight = createPreflight(looking, home.askController);
  const drainer = createDrainer({ tools, mover, view, begin, events, log });
  return {
    routers: [createMoveRoutes({ tools, begin, mover, drainer, preflight, isMember: clusterId !== null })],
    peerRouters: [preflightRouter(looking)],
    figures: figures.text,
    async run(signal) {
      if (clusterId === null) return;
      await Promise.all([mover.run(signal), drainer.run(signal)]);
    },
  };
}
