import { onCluster } from '../support/cluster/members.ts';
import { isShort } from '../support/short.ts';
import { takeovers } from './flock/fencing.ts';
import { streams } from './flock/streams.ts';
import { volumes } from './flock/volumes.ts';

// What depends on the storage; the rest is the same for both and takes minutes.
if (!isShort) onCluster('zfs', [volumes, streams, takeovers]);
