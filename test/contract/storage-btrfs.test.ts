import { openBtrfsPool } from '../support/btrfs-pool.ts';
import { mebi } from './storage/context.ts';
import { storageContract } from './storage.ts';

storageContract('btrfs', openBtrfsPool, { poolBytes: 600 * mebi });
