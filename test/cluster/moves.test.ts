import { onCluster } from '../support/cluster/members.ts';
import { chaos } from './moves/chaos.ts';
import { databases } from './moves/databases.ts';
import { drains } from './moves/drain.ts';
import { failovers, hostKilled } from './moves/failover.ts';
import { groups } from './moves/groups.ts';
import { movesUnderLoad, nginxMoved } from './moves/moves.ts';
import { rollbacks } from './moves/rollbacks.ts';

/** Controllers on several hosts: containers go to another one, on purpose or because theirs is dead. */
onCluster('btrfs', [movesUnderLoad, nginxMoved, databases, groups, rollbacks, hostKilled, failovers, drains, chaos], {
  proxy: true,
  title: 'controllers',
});

/** What zfs has synced before its host dies, and not yet replicated, waits in its intent log. */
onCluster('zfs', [hostKilled], { proxy: true, title: 'controllers' });
