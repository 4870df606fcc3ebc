import assert from 'node:assert/strict';
import type { ErrorCode } from '../../controller/model/errors.ts';
import { FlockError } from '../../controller/model/errors.ts';
import { CommandError } from '../../plugin/exec.ts';
import type { ZfsConfig } from '../../plugin/storage/zfs/config.ts';
import { classify, type Reason, reasonOf, toFlockError } from '../../plugin/storage/zfs/errors.ts';

const config: ZfsConfig = {
  prefix: 'flock/volumes',
  poolFile: '/var/lib/flock/pool.zfs',
  mountRoot: '/mnt/flock/volumes',
  daemonMountRoot: '/var/lib/flock/mnt',
  variant: 'zfs-fuse',
  tools: { zfs: 'zfs', zpool: 'zpool', mount: 'mount', umount: 'umount' },
};

/** As printed by zfs-fuse 0.7.0 and, where it differs, by OpenZFS 2.1. */
const texts: readonly (readonly [string, ErrorCode, Reason])[] = [
  [
    'connect: Connection refused\nPlease make sure that the zfs-fuse daemon is running.\ninternal error: failed to initialize ZFS library',
    'storage-daemon-down',
    'daemon-down',
  ],
  [
    "The ZFS modules are not loaded.\nTry running '/sbin/modprobe zfs' as root to load them.",
    'storage-daemon-down',
    'daemon-down',
  ],
  [
    'mount: /mnt/flock/volumes/a: mount(2) system call failed: Transport endpoint is not connected.',
    'storage-daemon-down',
    'dead-mount',
  ],
  ["cannot open 'flock/volumes/a': dataset does not exist", 'dataset-missing', 'missing'],
  ["cannot create 'flock/q/a': parent does not exist", 'dataset-missing', 'missing'],
  ['WARNING: could not send flock/volumes/b@17: does not exist', 'dataset-missing', 'missing'],
  [
    "warning: cannot send 'flock/volumes/b@2': incremental source (@nope) does not exist",
    'snapshot-not-found',
    'missing',
  ],
  ['could not find any snapshots to destroy; check snapshot names.', 'snapshot-not-found', 'missing'],
  ["cannot open 'nopool': no such pool", 'pool-missing', 'no-pool'],
  ["cannot create 'q/a': no such pool 'q'", 'pool-missing', 'no-pool'],
  ["cannot import 'fl': no such pool available", 'pool-missing', 'no-pool'],
  ["cannot create snapshot 'flock/volumes/a@s1': dataset already exists", 'storage-failed', 'exists'],
  [
    "cannot receive new filesystem stream: destination 'flock/volumes/r' exists\nmust specify -F to overwrite it",
    'storage-failed',
    'exists',
  ],
  ["cannot hold 'flock/volumes/a@s1': tag already exists on this dataset", 'storage-failed', 'tag-exists'],
  ["cannot release 'zz' from 'flock/volumes/a@s1': no such tag on this dataset", 'storage-failed', 'no-tag'],
  ["cannot destroy 'flock/volumes/a@s1': dataset is busy", 'volume-busy', 'busy'],
  ["cannot mount 'flock/volumes/b': mountpoint or dataset is busy", 'volume-busy', 'busy'],
  ['umount: /mnt/flock/volumes/a: target is busy.', 'volume-busy', 'busy'],
  [
    "cannot destroy 'flock/volumes/a@s1': snapshot has dependent clones\nuse '-R' to destroy the following datasets:\nflock/volumes/c",
    'storage-failed',
    'has-clones',
  ],
  ["cannot promote 'flock/volumes/a': not a cloned filesystem", 'storage-failed', 'not-a-clone'],
  [
    "cannot set property for 'flock/volumes/c': size is less than current used or reserved space",
    'quota-below-usage',
    'other',
  ],
  ["cannot create 'flock/volumes/zz': invalid property 'nonsense'", 'invalid-option', 'other'],
  [
    "cannot create 'flock/volumes/zz': 'compression' must be one of 'on | off | lzjb | gzip | gzip-[1-9] | zle'",
    'invalid-option',
    'other',
  ],
  [
    "cannot set property for 'flock/volumes/c': 'recordsize' must be power of 2 from 512 to 128k",
    'invalid-option',
    'other',
  ],
  [
    'cannot receive incremental stream: most recent snapshot of flock/volumes/r does not\nmatch incremental source',
    'no-common-snapshot',
    'other',
  ],
  [
    'cannot receive incremental stream: destination flock/volumes/r has been modified\nsince most recent snapshot',
    'no-common-snapshot',
    'modified',
  ],
  ['cannot receive: failed to read from stream', 'stream-invalid', 'other'],
  ['cannot receive new filesystem stream: invalid backup stream', 'stream-invalid', 'other'],
  ['cannot receive new filesystem stream: invalid stream (checksum mismatch)', 'stream-invalid', 'other'],
  ['cannot receive: invalid stream (bad magic number)', 'stream-invalid', 'other'],
  ['cannot receive incremental stream: checksum mismatch or incomplete stream', 'stream-invalid', 'other'],
  ["cannot create 'flock/volumes/x': out of space", 'pool-full', 'other'],
  ['fallocate: fallocate failed: No space left on device', 'pool-full', 'other'],
  ["cannot create 'flock/volumes/x': pool is read-only", 'pool-read-only', 'other'],
  ["cannot create snapshot 'flock/volumes/x@s': pool I/O is currently suspended", 'pool-unusable', 'other'],
  ['something that nobody has seen before', 'storage-failed', 'other'],
];

function failed(stderr: string, timedOut = false): CommandError {
  return new CommandError({ file: 'zfs', args: ['list'], exitCode: 1, stderr, timedOut, reason: 'exit status 1' });
}

function translated(error: CommandError, changes: Partial<ZfsConfig> = {}): FlockError {
  const result = toFlockError(error, { ...config, ...changes });
  assert.ok(result instanceof FlockError);
  return result;
}

describe('errors of zfs', () => {
  for (const [text, code, reason] of texts) {
    it(`"${text.split('\n')[0]}" is ${code}`, () => {
      assert.deepEqual(classify(text), { code, reason });
    });
  }

  it('keep the text of the command', () => {
    const error = translated(failed('a new text'));
    assert.equal(error.code, 'storage-failed');
    assert.match(error.message, /zfs list: exit status 1: a new text/);
    assert.equal(error.facts['stderr'], 'a new text');
  });

  it('carry the reason, and other errors carry none', () => {
    assert.equal(reasonOf(translated(failed('dataset is busy'))), 'busy');
    assert.equal(reasonOf(new Error('dataset is busy')), null);
  });

  it('of a daemon that is down say what to run', () => {
    const down = failed('Please make sure that the zfs-fuse daemon is running.');
    assert.match(translated(down).message, /systemctl restart zfs-fuse/);
    assert.match(translated(failed('The ZFS modules are not loaded.'), { variant: 'openzfs' }).message, /modprobe zfs/);
  });

  it('take a command without an end for a daemon that hangs, or for a pool that does', () => {
    assert.equal(translated(failed('', true)).code, 'storage-daemon-down');
    assert.equal(translated(failed('', true), { variant: 'openzfs' }).code, 'pool-unusable');
  });

  it('of other kinds pass as they are', () => {
    const error = new TypeError('a bug');
    assert.equal(toFlockError(error, config), error);
  });
});
