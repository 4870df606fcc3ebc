import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import express from 'express';
import { askSocket } from '../../controller/socket-request.ts';

describe('a question to a program on this host', () => {
  it('brings its body, whatever the method', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'flock-socket-'));
    const socketPath = join(folder, 'socket');
    const app = express().use(express.json(), (request, response) => void response.json(request.body ?? null));
    const server = createServer(app);
    await new Promise<void>((resolve) => void server.listen(socketPath, resolve));
    try {
      const ask = (method: string, body: unknown) =>
        askSocket({ socketPath, method, path: '/x', body, signal: AbortSignal.timeout(10_000) });
      const body = { giveUp: ['größer'] };
      for (const method of ['POST', 'PUT', 'PATCH', 'DELETE'])
        assert.deepEqual(await ask(method, body), { status: 200, text: JSON.stringify(body) }, method);
      for (const method of ['GET', 'DELETE'])
        assert.deepEqual(await ask(method, undefined), { status: 200, text: 'null' }, method);
    } finally {
      await new Promise((resolve) => server.close(resolve));
      await rm(folder, { recursive: true });
    }
  });
});
