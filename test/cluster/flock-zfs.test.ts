import { onCluster } from '../support/cluster/members.ts';
import { takeovers } from './flock/fencing.ts';
import { streams } from './flock/streams.ts';
import { volumes } from './flock/volumes.ts';

// What depends on the storage; the rest is the same for both and takes minutes.
onCluster('zfs', [volumes, streams, takeovers]);
