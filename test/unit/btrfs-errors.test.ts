import assert from 'node:assert/strict';
import { FlockError } from '../../controller/model/errors.ts';
import { CommandError } from '../../plugin/exec.ts';
import { codeOf, errnoOf, translate } from '../../plugin/storage/btrfs/errors.ts';

describe('btrfs errors', () => {
  // Captured from btrfs-progs 6.2 and util-linux 2.38.
  const captured: readonly (readonly [string, string])[] = [
    ['ERROR: f appears to contain an existing filesystem (ext4)\nERROR: use the -f option to force', 'pool-unusable'],
    ["ERROR: 'small' is too small to make a usable filesystem", 'pool-unusable'],
    ['ERROR: cannot find parent subvolume', 'no-common-snapshot'],
    ['ERROR: empty stream is not considered valid', 'stream-invalid'],
    ['ERROR: short read from stream: expected 17 read 10', 'stream-invalid'],
    ['ERROR: unexpected EOF in stream', 'stream-invalid'],
    ['ERROR: unexpected header', 'stream-invalid'],
    ['ERROR: crc32 mismatch in command', 'stream-invalid'],
    ['ERROR: writing to data failed: No space left on device', 'pool-full'],
    ['ERROR: cannot create subvolume: Read-only file system', 'pool-read-only'],
    ['mount: /tmp/m: special device /dev/loop77 does not exist.', 'pool-missing'],
    ['mount: /tmp/m: wrong fs type, bad option, bad superblock on /dev/loop0, missing', 'pool-unusable'],
    ['umount: /tmp/m: target is busy.', 'volume-busy'],
  ];
  for (const [text, code] of captured)
    it(`"${text.split('\n')[0]}" means ${code}`, () => assert.equal(codeOf(text), code));

  it('an unknown text has no code', () => {
    assert.equal(codeOf('ERROR: failed to set compression for x: Invalid argument'), null);
  });

  it('a failed command keeps its own text', () => {
    const cause = new CommandError({
      file: 'btrfs',
      args: ['x'],
      exitCode: 1,
      stderr: 'ERROR: new and strange',
      timedOut: false,
      reason: 'exit status 1',
    });
    const known = translate(cause);
    assert.ok(known instanceof FlockError);
    assert.deepEqual([known.code, known.cause], ['storage-failed', cause]);
    assert.match(known.message, /new and strange/);
    const received = translate(cause, 'stream-invalid');
    assert.ok(received instanceof FlockError);
    assert.equal(received.code, 'stream-invalid');
  });

  it('a failed system call has a code, a mistake of ours has none', () => {
    const full = translate(Object.assign(new Error('ENOSPC: write'), { code: 'ENOSPC', syscall: 'write' }));
    assert.ok(full instanceof FlockError);
    assert.equal(full.code, 'pool-full');
    const mistake = new TypeError('x is not a function');
    assert.equal(translate(mistake), mistake);
    assert.equal(errnoOf(mistake), null);
    const known = new FlockError('snapshot-held', 'held');
    assert.equal(translate(known), known);
  });
});
