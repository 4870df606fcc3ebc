import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { path } from '../../controller/cli/client.ts';
import { formatFacts, formatTable } from '../../controller/cli/output.ts';

describe('flockctl output', () => {
  it('aligns columns and trims line ends', () => {
    const table = formatTable(
      [
        { name: 'db', size: '1 GiB' },
        { name: 'longer', size: '-' },
      ],
      [
        { title: 'NAME', value: (row) => row.name },
        { title: 'SIZE', value: (row) => row.size, right: true },
      ],
    );
    assert.equal(table, 'NAME     SIZE\ndb      1 GiB\nlonger      -\n');
  });

  it('prints titles alone when there are no rows', () =>
    assert.equal(formatTable([], [{ title: 'NAME', value: String }]), 'NAME\n'));
  it('aligns facts', () => assert.equal(formatFacts({ A: '1', Long: '2' }), 'A     1\nLong  2\n'));
  it('keeps odd names inside their path segment', () =>
    assert.equal(path`/v1/volumes/${'../a?b'}/x`, '/v1/volumes/..%2Fa%3Fb/x'));
});

describe('flockctl whose reader has seen enough', () => {
  it('ends like any other program, without a word', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'flock-pipe-'));
    const socket = join(folder, 'controller.sock');
    const event = { atMs: 1, node: 'n1', kind: 'revived', subject: 'web', text: 'x'.repeat(400) };
    const events = Array.from({ length: 1_000 }, () => event);
    const server = createServer((_, response) => response.end(JSON.stringify({ events, cursor: '1' }))).listen(socket);
    await once(server, 'listening');
    try {
      const cli = join(import.meta.dirname, '../../controller/cli/main.ts');
      const child = spawn(process.execPath, [cli, '--controller-socket', socket, 'events', '--follow']);
      child.stdout.once('data', () => child.stdout.destroy());
      const [said, [status]] = await Promise.all([text(child.stderr), once(child, 'exit')]);
      assert.deepEqual([said, status], ['', 141]);
    } finally {
      server.close();
      server.closeAllConnections();
      await rm(folder, { recursive: true, force: true });
    }
  });
});
