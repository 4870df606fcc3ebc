import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { Agent, type RequestListener } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../support/until.ts';
import { ask, type Backend, type Context, freePort, httpBackend, tableOf } from './gate-support.ts';
import { type HaproxyUnderTest, startHaproxy } from './proxy-haproxy-support.ts';

const clientsMax = 8;

describe('HAProxy layer: changes under load', function () {
  this.timeout(60_000);
  let ends: (() => unknown)[] = [];
  const context: Pick<Context, 'later'> = { later: (end) => void ends.push(end) };
  let haproxy: HaproxyUnderTest;
  let port: number;
  let backends: Backend[];
  beforeEach('a HAProxy and two containers', async () => {
    haproxy = await startHaproxy(context);
    port = await freePort();
    const answer =
      (place: string): RequestListener =>
      (_req, res) =>
        void res.setHeader('place', place).end('ok');
    backends = [await httpBackend(context, answer('first')), await httpBackend(context, answer('second'))];
  });
  afterEach('end what the test has started', async () => {
    const last = ends;
    ends = [];
    for (const end of last.reverse()) await end();
  });

  const routes = () => ({ [`http://:${port} -> 1`]: 'web' });
  const ports = (...indexes: number[]) => indexes.map((index) => backends[index]?.port ?? 0);

  /** Keep-alive clients until `work` is done; answers how many requests each has made. Fails when one of them fails. */
  async function underLoad(work: () => Promise<void>): Promise<readonly number[]> {
    const agent = new Agent({ keepAlive: true });
    context.later(() => agent.destroy());
    let isOver = false;
    const clients = Array.from({ length: clientsMax }, async () => {
      let count = 0;
      for (; !isOver; count += 1) assert.equal((await ask(port, { agent })).body, 'ok');
      return count;
    });
    try {
      await Promise.race([work(), Promise.all(clients)]);
    } finally {
      isOver = true;
    }
    return Promise.all(clients);
  }

  it('changes routes a hundred times a second, as far as the machine goes', async () => {
    await haproxy.apply(tableOf(routes(), { web: ports(0) }));
    const pid = await workerPid(haproxy);
    let changes = 0;
    const counts = await underLoad(async () => {
      const startMs = performance.now();
      for (; changes < 300; changes += 1) {
        const more = Object.fromEntries(
          Array.from({ length: 5 }, (_, index) => [
            `http://h${changes + index}.example:${port}/p;${index} -> 1`,
            'web',
          ]),
        );
        await haproxy.apply(tableOf({ ...routes(), ...more }, { web: ports(0) }));
        await sleep(Math.max(0, startMs + changes * 10 - performance.now()));
      }
    });
    assert.ok(Math.min(...counts) > 10, `${counts}`);
    assert.equal(await workerPid(haproxy), pid, 'no reload');
  });

  it('replaces servers, and removes the old ones when their connections have ended', async () => {
    await haproxy.apply(tableOf(routes(), { web: ports(0) }));
    const counts = await underLoad(async () => {
      for (let index = 0; index < 60; index += 1) {
        await haproxy.apply(
          tableOf(routes(), { web: index % 3 === 0 ? ports(1) : index % 3 === 1 ? ports(0, 1) : ports(0) }),
        );
        await sleep(30);
      }
    });
    assert.ok(Math.min(...counts) > 10, `${counts}`);
    await haproxy.apply(tableOf(routes(), { web: ports(0) }));
    await until('the old servers are gone', 40_000, async () => {
      const servers = await haproxy.command('show stat hr0 4 -1');
      return servers.match(/^hr0,web-/gm)?.length === 1 ? true : undefined;
    });
  });

  it('opens and closes ports, and grows its stock, by reloads that nobody notices', async () => {
    await haproxy.apply(tableOf(routes(), { web: ports(0) }));
    const others = [await freePort(), await freePort(), await freePort()];
    const counts = await underLoad(async () => {
      for (const other of others) {
        await haproxy.apply(tableOf({ ...routes(), [`http://:${other} -> 1`]: 'web' }, { web: ports(0) }));
        assert.equal((await ask(other)).body, 'ok');
        await haproxy.apply(tableOf(routes(), { web: ports(0) }));
        await assert.rejects(ask(other), /ECONNREFUSED/);
      }
      const many = Array.from({ length: 70 }, (_, index) => `s${index}`);
      const more = Object.fromEntries(many.map((name) => [`http://${name}.example:${port} -> 1`, name]));
      const services = Object.fromEntries(many.map((name) => [name, ports(1)]));
      await haproxy.apply(tableOf({ ...routes(), ...more }, { web: ports(0), ...services }));
      assert.equal((await ask(port, { headers: { host: 's69.example' } })).body, 'ok');
      await haproxy.apply(tableOf(routes(), { web: ports(0) }));
    });
    assert.ok(Math.min(...counts) > 10, `${counts}`);
  });

  it('comes back with the newest table when it is killed, without the proxy', async () => {
    await haproxy.apply(tableOf(routes(), { web: ports(0) }));
    await haproxy.apply(
      tableOf({ ...routes(), [`http://b.example:${port}/x -> 1`]: 'api' }, { web: ports(0), api: ports(1) }),
    );
    const killed = await workerPid(haproxy);
    assert.ok(existsSync(`/proc/${killed}`), killed);
    haproxy.kill();
    // It answers for a moment after its master's death.
    await until('the worker of before has ended', 20_000, () => (existsSync(`/proc/${killed}`) ? undefined : true));
    const back = await until('it serves again', 20_000, () =>
      ask(port, { path: '/x', headers: { host: 'b.example' } }).then(
        (answer) => (answer.status === 200 ? answer : undefined),
        () => undefined,
      ),
    );
    assert.equal(back.headers['place'], 'second');
    assert.equal((await ask(port)).headers['place'], 'first');
    // The table is changed by the one who knew the HAProxy of before.
    await haproxy.apply(tableOf(routes(), { web: ports(1) }));
    assert.equal((await ask(port, { headers: { host: 'b.example' } })).headers['place'], 'second');
  });

  it('is taken over by another proxy process, which changes only what differs', async () => {
    await haproxy.apply(
      tableOf({ ...routes(), [`http://b.example:${port} -> 1`]: 'api' }, { web: ports(0), api: ports(1) }),
    );
    await haproxy.layer.close();
    const pid = await workerPid(haproxy);
    const another = haproxy.another();
    context.later(() => another.close());
    const counts = await underLoad(async () => {
      // The older service is gone; the other keeps its slot.
      await another.apply(
        tableOf({ ...routes(), [`http://c.example:${port} -> 1`]: 'new' }, { web: ports(0, 1), new: ports(1) }),
      );
      assert.equal((await ask(port, { headers: { host: 'c.example' } })).body, 'ok');
    });
    assert.ok(Math.min(...counts) > 0, `${counts}`);
    assert.equal(await workerPid(haproxy), pid, 'no reload');
  });
});

async function workerPid(haproxy: HaproxyUnderTest): Promise<string> {
  return /^Pid: (\d+)$/m.exec(await haproxy.command('show info'))?.[1] ?? '';
}
