import { onCluster } from '../support/cluster/members.ts';
import { chaos } from './moves/chaos.ts';
import { databases } from './moves/databases.ts';
import { failovers } from './moves/failover.ts';
import { moves } from './moves/moves.ts';
import { rollbacks } from './moves/rollbacks.ts';

/** Controllers on several hosts: containers go to another one, on purpose or because theirs is dead. */
onCluster('btrfs', [moves, databases, rollbacks, failovers, chaos], { proxy: true, title: 'controllers' });
