import assert from 'node:assert/strict';
import {
  identityOf,
  liveIdOf,
  parseCompression,
  parseGeneration,
  parseLoops,
  parseShown,
  parseSubvolumes,
  parseUsage,
  snapshotOf,
  totalOf,
} from '../../plugin/storage/btrfs/parse.ts';

// Captured from btrfs-progs 6.2 on Linux 6.18.
const list = `ID 256 gen 37 cgen 9 top level 5 parent_uuid -                                    received_uuid -                                    uuid b4890506-8b2e-354b-89f9-689ef52d3ac8 path volumes/a.00000001
ID 270 gen 36 cgen 36 top level 5 parent_uuid 590d240b-5172-8a43-a574-feab26e7567f received_uuid 151c69a7-0e24-fd43-93ca-f694a89c6d8e uuid c750d76b-6f6e-5847-98ed-087310ba8ab1 path snapshots/a.00000001/s1/s1
ID 259 gen 11 cgen 11 top level 5 parent_uuid 590d240b-5172-8a43-a574-feab26e7567f received_uuid -                                    uuid 9390727f-de21-ce44-8f8d-fc2255c57312 path volumes/a.00000001/with space`;

const qgroups = `Qgroupid    Referenced    Exclusive  Max referenced  Max exclusive   Path 
--------    ----------    ---------  --------------  -------------   ---- 
0/5              16384        16384            none           none   <toplevel>
0/257          3018752        16384        52428800           none   volumes/x
0/259          3018752        16384            none           none   snapshots/x/s2
0/271                0            0            none           none   <stale>
1/100             4096         4096            none           none   `;

const shown = `snapshots/a.00000001/s1/s1
	Name: 			s1
	UUID: 			d6424057-9734-1f47-acfe-6dc8bca2d9a6
	Parent UUID: 		-
	Received UUID: 		151c69a7-0e24-fd43-93ca-f694a89c6d8e
	Creation time: 		2026-11-23 00:31:49 +0000
	Subvolume ID: 		270
	Generation: 		36
	Gen at creation: 	36
	Parent ID: 		5
	Top level ID: 		5
	Flags: 			readonly
	Send transid: 		0
	Send time: 		2026-11-23 00:31:49 +0000
	Receive transid: 	0
	Receive time: 		-
	Snapshot(s):
	Quota group:		0/270
	  Limit referenced:	52428800
	  Limit exclusive:	-
	  Usage referenced:	3018752
	  Usage exclusive:	16384`;

describe('btrfs output', () => {
  it('lists subvolumes in the order they were made', () => {
    const subvolumes = parseSubvolumes(list);
    assert.deepEqual(
      subvolumes.map(({ id, path }) => [id, path]),
      [
        [256, 'volumes/a.00000001'],
        [259, 'volumes/a.00000001/with space'],
        [270, 'snapshots/a.00000001/s1/s1'],
      ],
    );
    assert.deepEqual(subvolumes[0]?.parentUuid, null);
    assert.deepEqual([subvolumes[0]?.generation, subvolumes[0]?.createdGeneration], [37, 9]);
    assert.deepEqual(subvolumes[2]?.receivedUuid, '151c69a7-0e24-fd43-93ca-f694a89c6d8e');
    assert.deepEqual(parseSubvolumes(''), []);
  });

  it('does not believe a second subvolume at one path, which a name with a line end could feign', () => {
    const feigned = `${list}\nID 999 gen 1 cgen 1 top level 5 parent_uuid - received_uuid - uuid x path volumes/a.00000001`;
    assert.equal(parseSubvolumes(feigned).find(({ path }) => path === 'volumes/a.00000001')?.id, 256);
  });

  it('reads usage and limits of subvolumes and leaves out groups of groups', () => {
    const usage = parseUsage(qgroups);
    assert.deepEqual([...usage.keys()], [5, 257, 259, 271]);
    assert.deepEqual(usage.get(257), { referenced: 3018752, exclusive: 16384, maxReferenced: 52428800 });
    assert.equal(usage.get(259)?.maxReferenced, null);
    assert.deepEqual([...parseUsage('WARNING: qgroup data inconsistent, rescan recommended')], []);
  });

  it('reads the generation and the compression of one', () => {
    assert.equal(parseGeneration('transid marker was 20'), 20);
    assert.throws(() => parseGeneration('ERROR: not a subvolume'));
    assert.equal(parseCompression('compression=zstd\n'), 'zstd');
    assert.equal(parseCompression(''), null);
  });

  it('reads one subvolume', () => {
    assert.deepEqual(parseShown(shown), {
      id: 270,
      uuid: 'd6424057-9734-1f47-acfe-6dc8bca2d9a6',
      parentUuid: null,
      receivedUuid: '151c69a7-0e24-fd43-93ca-f694a89c6d8e',
      generation: 36,
      createdGeneration: 36,
      readOnly: true,
      createdAtMs: Date.UTC(2026, 10, 23, 0, 31, 49),
      referenced: 3018752,
      maxReferenced: 52428800,
    });
    const other = parseShown(shown.replace('readonly', '-').replace('52428800', '-').replace('+0000', '+0130'));
    assert.deepEqual([other.readOnly, other.maxReferenced], [false, null]);
    assert.equal(other.createdAtMs, Date.UTC(2026, 10, 22, 23, 1, 49));
    assert.throws(() => parseShown('something else'));
  });

  it('knows a snapshot by the UUID it had where it was made', () => {
    assert.equal(identityOf({ uuid: 'own', receivedUuid: null }), 'own');
    assert.equal(identityOf({ uuid: 'own', receivedUuid: 'first' }), 'first');
  });

  it('tells live subvolumes, snapshots and others apart by their path', () => {
    assert.equal(liveIdOf('volumes/a.00000001'), 'a.00000001');
    assert.equal(liveIdOf('volumes/a.00000001/nested'), null);
    assert.equal(liveIdOf('volumes/stranger'), null);
    assert.equal(liveIdOf('incoming/a.00000001'), null);
    assert.deepEqual(snapshotOf('snapshots/a.00000001/s1/s1'), { id: 'a.00000001', name: 's1' });
    assert.equal(snapshotOf('snapshots/a.00000001/s1/s2'), null);
    assert.equal(snapshotOf('snapshots/a.00000001/s1'), null);
    assert.equal(snapshotOf('snapshots/a.00000001/a b/a b'), null);
  });

  it('finds the loop devices of an inode', () => {
    const text = '/dev/loop0: [65024]:2197230 (/tmp/bx/f)\n/dev/loop12: [65024]:77 (/var/lib/x (deleted))';
    assert.deepEqual(parseLoops(text, 2197230), ['/dev/loop0']);
    assert.deepEqual(parseLoops(text, 77), ['/dev/loop12']);
    assert.deepEqual(parseLoops('', 77), []);
  });

  it('adds up what a dataset and its snapshots occupy', () => {
    const usage = (referenced: number, exclusive: number) => ({ referenced, exclusive, maxReferenced: null });
    assert.equal(totalOf(usage(10, 10), []), 10);
    assert.equal(totalOf(usage(10, 2), [usage(12, 3), usage(9, 1)]), 15);
    // The data is in both snapshots and so in neither alone.
    assert.equal(totalOf(usage(1, 1), [usage(60, 0), usage(60, 0)]), 61);
  });
});
