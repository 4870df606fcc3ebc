import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { VolumeName } from '../../controller/model/names.ts';
import type { Seen } from '../../controller/program/view.ts';
import { createIdsAlone } from '../../controller/program/volume-ids.ts';

describe('the ids of volumes on a host that is in no cluster', () => {
  const names = ['db'] as unknown as readonly VolumeName[];
  const seen = {} as Seen;
  let folder: string;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'flock-ids-'));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  it('are just not known while the plugin is away, or has a fault', async () => {
    const socket = join(folder, 'flock.sock');
    const idsOf = createIdsAlone(socket);
    assert.equal((await idsOf(names, seen)).size, 0);
    const server = createServer((_, response) => response.writeHead(503).end('{}')).listen(socket);
    await once(server, 'listening');
    try {
      assert.equal((await idsOf(names, seen)).size, 0);
    } finally {
      server.close();
    }
  });

  it('are waited for once where the plugin hangs, not for each container', async () => {
    const socket = join(folder, 'flock.sock');
    let asked = 0;
    const server = createServer(() => {
      asked += 1;
    }).listen(socket);
    await once(server, 'listening');
    try {
      const idsOf = createIdsAlone(socket, 500);
      for (let count = 0; count < 10; count += 1) assert.equal((await idsOf(names, seen)).size, 0);
      assert.equal(asked, 1);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});
