import { onCluster } from '../support/cluster/members.ts';
import { faults } from './proxy/faults.ts';
import { links } from './proxy/links.ts';
import { pauses } from './proxy/pauses.ts';
import { routes } from './proxy/routes.ts';

/** Routes, links and pauses on several hosts; what the volumes are on makes no difference to them. */
onCluster('btrfs', [routes, links, pauses, faults], { proxy: true });
