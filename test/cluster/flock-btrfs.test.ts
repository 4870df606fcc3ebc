import { onCluster } from '../support/cluster/members.ts';
import { failovers } from './flock/failover.ts';
import { fencing, takeovers } from './flock/fencing.ts';
import { replicas } from './flock/replicas.ts';
import { soak } from './flock/soak.ts';
import { streams } from './flock/streams.ts';
import { volumes } from './flock/volumes.ts';

onCluster('btrfs', [volumes, streams, soak, fencing, takeovers, failovers, replicas]);
