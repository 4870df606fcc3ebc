import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import pino from 'pino';
import { createNode, type Node } from '../../plugin/node.ts';
import { pathsBelow } from '../../plugin/paths.ts';
import { rejects } from '../support/refuses.ts';

describe('a node that can not start', () => {
  let folder = '';
  let node: Node;
  let stop: AbortController;
  let running: Promise<void>;
  const paths = () => pathsBelow(folder);

  async function start(settings: string): Promise<void> {
    await mkdir(dirname(paths().settings), { recursive: true });
    await writeFile(paths().settings, settings);
    const member = { load: async () => undefined, run: async () => undefined, agent: () => null, identity: () => null };
    node = createNode(paths(), '', member, pino({ level: 'silent' }));
    running = node.run(stop.signal);
  }
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'flock-node-'));
    stop = new AbortController();
  });
  afterEach(async () => {
    stop.abort();
    await running;
    await rm(folder, { recursive: true });
  });
  const soon = () => AbortSignal.timeout(5_000);
  const good = JSON.stringify({ backend: 'zfs', pool: 'nowhere/flock', poolSizeBytes: 1024 ** 3, trashMs: 5 });

  it('looks again at once for whoever has mended the settings', async () => {
    await start('{');
    assert.match((await rejects(node.usable(soon()), 'invalid-option')).message, /settings\.json can't be read/);
    await writeFile(paths().settings, good);
    // There are no tools of zfs below this root: another fault, which shows that the file was read.
    await assert.rejects(node.usable(soon()), (error: Error) => !/settings/.test(error.message));
    assert.equal((await node.ready(soon())).settings().trashMs, 5);
  });

  it('does not hold what it could not write', async () => {
    await start(good);
    const context = await node.ready(soon());
    await symlink('/dev/full', `${paths().settings}.new`);
    await rejects(node.changeSettings({ trashMs: 7 }), 'storage-failed');
    assert.equal(context.settings().trashMs, 5);
    await Promise.all([node.changeSettings({ trashMs: 7 }), node.changeSettings({ stashMs: 8 })]);
    assert.deepEqual([context.settings().trashMs, context.settings().stashMs], [7, 8]);
  });
});
