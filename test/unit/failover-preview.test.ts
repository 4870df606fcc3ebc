import assert from 'node:assert/strict';
import { parseNodeName, parseSnapshotName } from '../../controller/model/names.ts';
import { snapshotName } from '../../controller/model/replication.ts';
import { createCandidates } from '../../plugin/cluster/candidates.ts';
import { previewFailover } from '../../plugin/cluster/preview.ts';
import { volumeDoc } from '../support/move-documents.ts';

const [n1, n2, n3] = [parseNodeName('n1'), parseNodeName('n2'), parseNodeName('n3')];
const nowMs = 1_000_000;
const goneMs = 900_000;
const snapshotOf = (one: number | string) => ({
  name: typeof one === 'string' ? parseSnapshotName(one) : snapshotName(1, one),
  identity: String(one),
});

/** n1 owned the volume and is dead; n2 and n3 have these snapshots: times of those for replication, the others people's. */
async function preview(has: Readonly<Record<string, readonly (number | string)[]>>) {
  const doc = volumeDoc('data', n1, { replicas: [n2, n3] });
  const seen = { doc, index: '1', session: null, freeSinceMs: goneMs };
  const nodes = [n1, n2, n3].map((name) => ({
    doc: { name },
    alive: name === n1 ? null : {},
    deadSinceMs: name === n1 ? goneMs : null,
  }));
  const stateOf = (name: string) => ({ epoch: 1, snapshots: has[name]?.map(snapshotOf) ?? null });
  const parts = {
    node: n2,
    clock: { bootMs: () => nowMs, nowMs: () => nowMs },
    directory: {
      byName: () => seen,
      volume: () => seen,
      node: (name: string) => nodes.find((one) => one.doc.name === name),
      nodes: () => nodes,
    },
    peers: { call: async (name: string) => stateOf(name) },
    promises: { givenUntilMs: () => 0 },
    own: async () => stateOf(n2),
    guardMs: 1_000,
  } as never;
  const candidates = createCandidates(parts);
  return await previewFailover({ ...(parts as object), candidates } as never, doc.name, new AbortController().signal);
}

describe('what a takeover would find', () => {
  it('is the copy that has all of the other, where both catch up through snapshots that people made', async () => {
    const found = await preview({ n2: [400_000, 500_000, 'hourly-1'], n3: [400_000, 'hourly-1', 'hourly-2'] });
    assert.deepEqual([found.best, found.reason], ['n3', 'it is about to be taken over']);
    // So what is known of the one with less is true of the other, too.
    assert.deepEqual(
      found.copies.map(({ node, lossMs }) => [node, lossMs]),
      [
        [n2, 400_000],
        [n3, 400_000],
      ],
    );
  });

  it('is a first copy, too, that has only such snapshots, though it is not taken by itself', async () => {
    const found = await preview({ n3: ['hourly-1', 'hourly-2'] });
    assert.equal(found.best, 'n3');
    assert.match(found.reason, /the first copy has not arrived completely/);
    const none = await preview({ n3: [] });
    assert.deepEqual([none.best, none.reason], [null, 'no copy answers']);
  });
});
