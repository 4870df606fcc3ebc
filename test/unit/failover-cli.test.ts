import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import type { Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import express from 'express';
import { describeFailover } from '../../controller/cli/replication-commands.ts';
import { parseNodeName, parseVolumeName } from '../../controller/model/names.ts';
import { listen } from '../../controller/server/listen.ts';
import { answerProblems, noSuchCall } from '../../controller/server/problems.ts';
import type { Member } from '../../plugin/member.ts';
import type { Node } from '../../plugin/node.ts';
import { memberRoutes } from '../../plugin/server/member-api.ts';
import { log } from '../support/cluster-hosts.ts';
import { type SmallCluster, startSmallCluster } from '../support/small-cluster.ts';
import { inTerminal } from '../support/terminal.ts';
import { until } from '../support/until.ts';

const waitMs = 30_000;
const cli = join(import.meta.dirname, '../../controller/cli/main.ts');
const db = parseVolumeName('db');

describe('what flockctl failover shows', () => {
  const viewNow = () => ({
    ...{ volume: 'db', owner: 'n1', isOwnerAlive: false, isHeld: false, waitMs: 2_340, policy: 'auto' as const },
    ...{ maxLossMs: 30_000, best: 'n2', reason: 'n1 may still write' },
    copies: [
      { node: 'n2', state: 'answers' as const, snapshot: 's2', takenAtMs: Date.now() - 61_000, lossMs: 1_210 },
      { node: 'n3', state: 'none' as const, snapshot: null, takenAtMs: null, lossMs: null },
    ],
  });

  it('is what each copy has, what it may miss, and why it has not been taken', () => {
    const view = viewNow();
    assert.deepEqual(describeFailover(view).split('\n'), [
      'db: its owner n1 is dead; failover=auto, max-loss=30s',
      'COPY ON  STATE        SNAPSHOT  AGE  MAY MISS',
      'n2       answers      s2         1m      1.3s',
      'n3       not arrived  -           -         -',
      'best copy: n2',
      'n1 may still write to it for 2.4s',
      'not taken over by itself: n1 may still write',
    ]);
    const alone = describeFailover({ ...view, isHeld: true, maxLossMs: null, waitMs: null, copies: [], best: null });
    assert.match(alone, /^db: its owner n1 holds it; failover=auto\nno node has a copy\nnot taken/);
    assert.match(describeFailover({ ...view, isOwnerAlive: true }), /n1 lives, but does not hold it/);
  });
});

describe('flockctl failover', function () {
  this.timeout(3 * waitMs);
  let cluster: SmallCluster;
  let server: Server;
  let folder: string;
  let env: Readonly<Record<string, string>>;

  beforeEach(async () => {
    cluster = await startSmallCluster(['n1', 'n2']);
    folder = await mkdtemp(join(tmpdir(), 'flock-failover-'));
    const { agent, context } = cluster.node('n2');
    const node = { ready: async () => context } as Partial<Node> as Node;
    const identity = () => ({ name: parseNodeName('n2') }) as ReturnType<Member['identity']>;
    const routes = memberRoutes(node, { agent: () => agent, identity }, false);
    const socket = join(folder, 'flock.sock');
    server = await listen(socket, express().use(express.json(), routes, noSuchCall, answerProblems(log, 'api.failed')));
    env = { FLOCK_SOCKET: socket };
    const n1 = cluster.node('n1');
    await n1.create(db, { replicas: '1', failover: 'manual' });
    const end = await n1.use(db);
    await n1.write(db, 'kept');
    await end();
    await until('the copy is there', waitMs, () =>
      n1.agent.copies(n1.context.state.byName(db)?.id as never).some(({ state }) => state === 'in-sync')
        ? true
        : undefined,
    );
    cluster.cutOff('n1');
    await until('n1 can’t write any more', waitMs, async () => {
      const { isHeld, waitMs: leftMs } = await agent.previewFailover(db, new AbortController().signal);
      return !isHeld && leftMs === 0 ? true : undefined;
    });
  });
  afterEach(async () => {
    server.close();
    server.closeAllConnections();
    await cluster.dispose();
    await rm(folder, { recursive: true });
  });

  const owner = () => cluster.node('n2').agent.directory.byName(db)?.doc.owner;
  const failover = ['failover', db] as const;

  it('shows what would be lost and asks; nothing but yes is yes', async () => {
    for (const answer of ['n\n', '\n', 'yess\n', '\x04', '\x03']) {
      const terminal = inTerminal([process.execPath, cli, ...failover], env);
      await terminal.sees(/n2 +answers .*\n[\s\S]*Give db to n2\? \[y\/N\] $/);
      terminal.type(answer);
      assert.equal(await terminal.ended(), 1, JSON.stringify(answer));
      assert.match(terminal.shown(), /flockctl: nothing was done\n$/);
      assert.equal(owner(), 'n1');
    }
    const terminal = inTerminal([process.execPath, cli, ...failover], env);
    await terminal.sees(/\[y\/N\] $/);
    terminal.type('y\n');
    assert.equal(await terminal.ended(), 0);
    assert.match(
      terminal.shown(),
      /db is now node n2's\. At most the last [\d.]+s before its owner was seen gone are missing\.\n$/,
    );
    assert.equal(owner(), 'n2');
    assert.equal(await cluster.node('n2').read(db), 'kept');
  });

  it('shows the same where there is nobody to ask, and does it with --yes only', async () => {
    const run = (...more: readonly string[]) =>
      execa(process.execPath, [cli, ...more, ...failover], { env, reject: false, input: 'y\n' });
    const refused = await run();
    assert.equal(refused.exitCode, 1);
    assert.match(refused.stderr, /n2 +answers [\s\S]*nothing was done, for there is nobody to ask: --yes/);
    assert.equal(owner(), 'n1');
    const done = await execa(process.execPath, [cli, '-o', 'json', ...failover, '--yes'], { env });
    const { name, owner: taker, lossMs } = JSON.parse(done.stdout);
    assert.deepEqual([name, taker, owner()], ['db', 'n2', 'n2']);
    assert.ok(lossMs > 0);
  });
});
