import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Gate } from '../../proxy/gate/gate.ts';
import type { ListenerStatus } from '../../proxy/gate/listeners.ts';
import { parseServiceName } from '../../proxy/model/names.ts';
import type { Pause } from '../../proxy/model/records.ts';
import type { Table } from '../../proxy/model/table.ts';
import { parseRequestLog } from '../../proxy/stack/haproxy/request-log.ts';
import type { Layer } from '../../proxy/stack/layer.ts';
import { createStack } from '../../proxy/stack/stack.ts';
import { tableOf } from '../contract/gate-support.ts';
import { rejects } from '../support/refuses.ts';

const db = parseServiceName('db');

describe('the stack', () => {
  /** What was done, in order. */
  let done: string[];
  let failing: boolean;
  let tunnels: number;
  let requests: number;
  let taken: string[];
  let gatePauses: readonly string[];
  const listeners = (table: Table) => [...table.listeners.keys()].join(' ');

  const gate = {
    async apply(table: Table): Promise<readonly ListenerStatus[]> {
      done.push('gate');
      gatePauses = [...table.services.values()].flatMap(({ pause }) => pause?.id ?? []);
      return [...table.listeners.keys()].map((key) =>
        taken.includes(key) ? { key, state: 'failed', problem: 'in use' } : { key, state: 'listening' },
      );
    },
    status: () => [],
    pauses: () => gatePauses,
    inFlight: () => ({ requests: 0, tunnels: 0, held: 2 }),
    drain: async () => ({ requests: 0, tunnels: 0, held: 2, tunnelsClosed: 0 }),
  } as unknown as Gate;
  const layer: Layer = {
    name: 'kernel',
    async apply(table) {
      done.push(`kernel ${listeners(table)}`);
      if (failing) throw new Error('no nft');
    },
    problems: () => new Map(),
    inFlight: async () => ({ requests, tunnels }),
    async cutTunnels() {
      done.push('cut');
      return tunnels;
    },
    close: async () => {},
  };
  const table = (pause: Pause | null) =>
    tableOf({ 'tcp://:5432 -> 1': 'db' }, { db: [1] }, pause === null ? {} : { pause });
  const pause: Pause = { id: 'p1', untilMs: Date.now() + 60_000, drain: null };
  beforeEach(() => {
    [done, failing, tunnels, requests, taken] = [[], false, 0, 0, []];
  });

  it('gives a table to the gate first, and acknowledges its pauses when all layers have it', async () => {
    const stack = createStack({ gate, layers: [layer] });
    await stack.apply(table(pause));
    assert.deepEqual(done, ['gate', 'kernel tcp *:5432']);
    assert.deepEqual(stack.pauses(), ['p1']);
    failing = true;
    await stack.apply(table({ ...pause, id: 'p2' }));
    assert.deepEqual(stack.pauses(), []);
    assert.match(stack.problems().get('layer kernel') ?? '', /no nft/);
    failing = false;
    await stack.apply(table({ ...pause, id: 'p2' }));
    assert.deepEqual([stack.pauses(), stack.problems().size], [['p2'], 0]);
    // It has ended by itself, and does not begin again.
    gatePauses = [];
    assert.deepEqual(stack.pauses(), []);
    await rejects(stack.drain(db, 'p2', 60, 'wait'), 'invalid-request');
  });

  it('leaves a port that another program has to that program', async () => {
    taken = ['tcp *:5432'];
    await createStack({ gate, layers: [layer] }).apply(table(null));
    assert.deepEqual(done, ['gate', 'kernel ']);
  });

  it('leaves tunnels alone when it is asked to, and waits for requests only', async () => {
    const stack = createStack({ gate, layers: [layer] });
    [tunnels, requests] = [3, 1];
    await stack.apply(table(pause));
    const draining = stack.drain(db, 'p1', 30_000, 'leave');
    assert.equal(await Promise.race([draining, sleep(150)]), undefined, 'a request runs');
    requests = 0;
    assert.deepEqual(await draining, { requests: 0, tunnels: 3, tunnelsClosed: 0 });
    assert.ok(!done.includes('cut'), done.join());
  });

  it('ends connections when a drain’s time is over, but none once the pause does not hold any more', async () => {
    const stack = createStack({ gate, layers: [layer] });
    tunnels = 3;
    await stack.apply(table(pause));
    assert.deepEqual(await stack.drain(db, 'p1', 60, 'wait'), { requests: 0, tunnels: 3, tunnelsClosed: 3 });
    done = [];
    const draining = rejects(stack.drain(db, 'p1', 5_000, 'wait'), 'invalid-request');
    await sleep(60);
    await stack.apply(table(null));
    await draining;
    assert.ok(!done.includes('cut'), done.join());
  });
});

describe('HAProxy’s words about a request', () => {
  it('are read, and nothing else is', () => {
    assert.deepEqual(parseRequestLog('http-80 200 12 10.0.0.9 GET www.example.com /a?b'), {
      listener: 'http *:80',
      status: 200,
      durationMs: 12,
      client: '10.0.0.9',
      method: 'GET',
      host: 'www.example.com',
      path: '/a?b',
    });
    const others = [
      `http-80 200 ${'9'.repeat(400)} 10.0.0.9 GET h /`,
      'http-80 999 1 10.0.0.9 GET h /',
      'http-80 101 1 10.0.0.9 GET h /',
      'ftp-80 200 1 10.0.0.9 GET h /',
      '',
    ];
    for (const text of others) assert.equal(parseRequestLog(text), null, text.slice(0, 40));
  });
});
