import { onCluster } from '../support/cluster/members.ts';
import { isShort } from '../support/short.ts';
import { failovers } from './flock/failover.ts';
import { fencing, takeovers } from './flock/fencing.ts';
import { replicas } from './flock/replicas.ts';
import { soak } from './flock/soak.ts';
import { streams } from './flock/streams.ts';
import { volumes } from './flock/volumes.ts';

// The chaos of moves.test.ts has the same faults, with more going on.
const random = isShort ? [] : [soak];

onCluster('btrfs', [volumes, streams, ...random, fencing, takeovers, failovers, replicas]);
