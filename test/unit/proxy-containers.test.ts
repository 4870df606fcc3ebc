import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventOf, linesOf } from '../../controller/docker/events.ts';
import { createDockerWatch, type DockerWatch } from '../../controller/docker/watch.ts';
import { createdLabel } from '../../controller/model/container-spec.ts';
import {
  containerSchema,
  hasOurLabels,
  type Inspected,
  inspectedSchema,
  readContainer,
} from '../../proxy/model/containers.ts';
import { decode } from '../../proxy/model/records.ts';
import { createFakeDocker, dockerAnswer, type FakeDocker, here, idOf, silent } from '../support/proxy-fakes.ts';
import { until } from '../support/until.ts';

const web = { 'flock.service': 'web', 'flock.route': 'http://www.example.com -> 8080' };
const read = (labels: Readonly<Record<string, string>>, more: object = {}) =>
  readContainer(inspectedSchema.parse(dockerAnswer(idOf('a'), 'web1', labels, more)), '10.0.0.1');

describe('a container, as Docker describes it', () => {
  it('has its address, its gateway and what its labels declare', () => {
    const { facts, pid, hostsPath } = read(web);
    assert.equal(facts.name, 'web1');
    assert.deepEqual([facts.address, facts.gateway, facts.healthy], ['172.17.0.2', '172.17.0.1', true]);
    assert.equal(facts.declared.routes[0]?.targetPort, 8080);
    assert.deepEqual(facts.problems, []);
    assert.equal(pid, 4321);
    assert.match(hostsPath ?? '', /hosts$/);
  });

  it('is as old as the first of its workload, so that a move takes no route from it', () => {
    const made = { Created: '2026-03-01T00:00:00Z' };
    const first = Date.parse('2026-01-01T00:00:00Z');
    const ageOf = (label: string, name = 'web1') =>
      read({ ...web, [createdLabel]: `${label} ${name}` }, made).facts.createdAtMs;
    assert.equal(read(web, made).facts.createdAtMs, Date.parse(made.Created));
    assert.equal(ageOf(String(first)), first);
    assert.equal(ageOf(String(first), 'web'), Date.parse(made.Created), 'made of its image by "docker commit"');
    assert.equal(ageOf('9'.repeat(15)), Date.parse(made.Created), 'never younger than it is');
    for (const odd of ['', '-1', 'x', '1e3', '9'.repeat(30)]) assert.equal(ageOf(odd), Date.parse(made.Created));
    assert.deepEqual(read({ ...web, [createdLabel]: '1 web1' }).facts.problems, []);
  });

  it('is healthy when it runs and its health check, if there is one, has passed', () => {
    const state = (more: object) => ({ State: { Status: 'running', Pid: 1, StartedAt: '', ...more } });
    assert.equal(read(web, state({})).facts.healthy, true);
    assert.equal(read(web, state({ Health: { Status: 'none' } })).facts.healthy, true);
    assert.equal(read(web, state({ Health: { Status: 'starting' } })).facts.healthy, false);
    assert.equal(read(web, state({ Health: { Status: 'healthy' } })).facts.healthy, true);
    assert.equal(read(web, state({ Status: 'paused' })).facts.healthy, false);
    const stopped = read(web, state({ Status: 'exited', Pid: 0 })).facts;
    assert.deepEqual([stopped.healthy, stopped.address, stopped.gateway], [false, null, null]);
    assert.equal(stopped.declared.routes.length, 1, 'a stopped container keeps its routes');
  });

  it('is reached in the network that it was started with', () => {
    const networks = {
      HostConfig: { NetworkMode: 'shop' },
      NetworkSettings: {
        Networks: {
          aaa: { IPAddress: '172.18.0.2', Gateway: '172.18.0.1' },
          overlay: { IPAddress: '10.1.0.2', Gateway: '' },
          shop: { IPAddress: '172.19.0.2', Gateway: '172.19.0.1' },
        },
      },
    };
    assert.equal(read(web, networks).facts.address, '172.19.0.2');
  });

  it('on the host’s network is reached at the node, and can have no links', () => {
    const { facts } = read(
      { ...web, 'flock.link': '3306 -> mysql:3306' },
      { HostConfig: { NetworkMode: 'host' }, NetworkSettings: { Networks: {} } },
    );
    assert.deepEqual([facts.address, facts.gateway], ['10.0.0.1', null]);
    assert.match(facts.problems[0]?.text ?? '', /flock\.link.*can have no links/);
  });

  it('makes a document that can be read again, however bad its labels are', () => {
    const labels = Object.fromEntries(Array.from({ length: 500 }, (_, n) => [`flock.${'x'.repeat(3_000)}${n}`, '']));
    const { facts } = read({ ...web, ...labels });
    const doc = { ...facts, node: here, inner: { address: '10.0.0.1', ports: { '8080': 24_000 } }, linkPorts: {} };
    const text = JSON.stringify(doc);
    assert.ok(text.length < 64 * 1024, `${text.length} bytes`);
    assert.deepEqual(decode(containerSchema, text), doc);
  });
});

describe('Docker’s events', () => {
  it('are put together from chunks that end anywhere', async () => {
    const bytes = Buffer.from('{"a":"ü"}\n{"b":1}\nrest');
    async function* chunks() {
      for (const byte of bytes) yield Buffer.from([byte]);
    }
    const lines: string[] = [];
    for await (const line of linesOf(chunks())) lines.push(line);
    assert.deepEqual(lines, ['{"a":"ü"}', '{"b":1}']);
  });

  it('name the container, also those of networks, and the signal that it was sent', () => {
    assert.deepEqual(eventOf('{"Type":"container","Action":"die","Actor":{"ID":"abc"}}'), {
      container: 'abc',
      action: 'die',
      signal: null,
    });
    const kill = '{"Type":"container","Action":"kill","Actor":{"ID":"abc","Attributes":{"signal":"15"}}}';
    assert.equal(eventOf(kill)?.signal, '15');
    const network = '{"Type":"network","Action":"connect","Actor":{"ID":"net","Attributes":{"container":"abc"}}}';
    assert.equal(eventOf(network)?.container, 'abc');
    for (const line of ['', 'garbage', 'null', '{}', '{"Actor":7}']) assert.equal(eventOf(line), null);
  });
});

describe('the watch on Docker', () => {
  let docker: FakeDocker;
  let watch: DockerWatch<Inspected>;
  let stop: AbortController;
  let running: Promise<void>;
  let changes = 0;
  const times = { settleMs: 20, retryMs: 20, fullMs: 60_000, patienceMs: 50, firstPatienceMs: 500, brokenMs: 200 };

  beforeEach(() => {
    docker = createFakeDocker();
    stop = new AbortController();
    changes = 0;
    watch = createDockerWatch({
      source: docker,
      schema: inspectedSchema,
      isWanted: ({ labels, name }) => hasOurLabels(labels) || name === 'linked',
      onChange: () => {
        changes += 1;
      },
      log: silent,
      times,
    });
  });
  afterEach(async () => {
    stop.abort();
    await running;
  });

  const start = () => {
    running = watch.run(stop.signal);
  };
  const put = (digit: string, name: string, labels: Readonly<Record<string, string>> = web, more: object = {}) => {
    docker.containers.set(idOf(digit), dockerAnswer(idOf(digit), name, labels, more));
    docker.changed(idOf(digit));
  };
  const names = () => watch.containers()?.map(({ Name }) => Name.slice(1));
  const shows = (...wanted: readonly string[]) =>
    until(`it shows ${wanted}`, 2_000, () => (names()?.join() === wanted.join() ? true : undefined));

  it('shows containers that have labels or are wanted otherwise, and follows what happens to them', async () => {
    put('a', 'web1');
    put('b', 'other', {});
    put('c', 'linked', {});
    assert.equal(watch.containers(), null);
    start();
    await shows('web1', 'linked');
    put('a', 'web2');
    await shows('web2', 'linked');
    docker.containers.delete(idOf('c'));
    docker.changed(idOf('c'));
    await shows('web2');
    assert.equal(watch.isUp(), true);
  });

  it('asks little, however many events come', async () => {
    for (const digit of ['a', 'b', 'c', 'd']) put(digit, `web-${digit}`);
    start();
    await shows('web-a', 'web-b', 'web-c', 'web-d');
    await sleep(3 * times.settleMs);
    const before = { ...docker.asked };
    for (let count = 0; count < 10_000; count += 1) docker.changed(idOf('a'));
    await sleep(10 * times.settleMs);
    assert.ok(docker.asked.lists - before.lists <= 3, `${docker.asked.lists - before.lists} lists`);
    assert.ok(docker.asked.inspections - before.inspections <= 3);
  });

  it('tells nothing new where nothing has changed', async () => {
    put('a', 'web1');
    start();
    await shows('web1');
    const before = changes;
    docker.changed(idOf('a'));
    await sleep(5 * times.settleMs);
    assert.equal(changes, before);
  });

  it('keeps what Docker has said while it is away, and sees what was changed meanwhile', async () => {
    put('a', 'web1');
    start();
    await shows('web1');
    docker.away(true);
    docker.changed(idOf('a'));
    await until('it is told to be away', 2_000, () => (watch.isUp() ? undefined : true));
    assert.match(watch.problem() ?? '', /ECONNREFUSED/);
    assert.deepEqual(names(), ['web1']);
    put('b', 'web2');
    docker.away(false);
    await shows('web1', 'web2');
    assert.equal(watch.problem(), null);
  });

  it('leaves out a container whose description can’t be read, says so, and shows the others', async () => {
    put('a', 'web1');
    put('b', 'strange', web, { State: { Status: 7 } });
    start();
    await shows('web1');
    assert.match(watch.problem() ?? '', /container strange.*Status/);
    put('b', 'strange');
    await shows('web1', 'strange');
    assert.equal(watch.problem(), null);
  });

  it('sees the others while Docker starts one, and says nothing of that until it has', async () => {
    put('a', 'slow1');
    put('b', 'web1');
    start();
    await shows('slow1', 'web1');
    const started = Promise.withResolvers<void>();
    docker.beforeInspect.set(idOf('a'), () => started.promise);
    put('a', 'slow2');
    put('b', 'web2');
    await shows('slow1', 'web2');
    put('b', 'web3');
    await shows('slow1', 'web3');
    assert.deepEqual([watch.isUp(), watch.problem()], [true, null]);
    docker.beforeInspect.clear();
    started.resolve();
    await shows('slow2', 'web3');
  });

  it('waits longer for the first word of a container', async () => {
    put('a', 'slow');
    put('b', 'web');
    docker.beforeInspect.set(idOf('a'), () => sleep(4 * times.patienceMs));
    start();
    await until('it has looked', 2_000, () => watch.containers() ?? undefined);
    assert.deepEqual(names(), ['slow', 'web']);
    stop.abort();
    await running;
  });

  it('waits so long for the first word of all together, however many Docker is just starting', async () => {
    const digits = [...'abcdef12'];
    for (const digit of digits) {
      put(digit, `starting-${digit}`);
      docker.beforeInspect.set(idOf(digit), () => sleep(60_000, undefined, { signal: stop.signal }).catch(() => {}));
    }
    put('9', 'other');
    const beganMs = performance.now();
    start();
    await shows('other');
    assert.ok(performance.now() - beganMs < 2 * times.firstPatienceMs);
  });

  it('sees the others where Docker can’t describe one, says so, and asks for that again', async () => {
    put('a', 'broken');
    put('b', 'web1');
    docker.beforeInspect.set(idOf('a'), async () => {
      throw Object.assign(new Error('RWLayer of container aaaa is unexpectedly nil'), { statusCode: 500 });
    });
    start();
    await shows('web1');
    assert.equal(watch.isUp(), true);
    assert.match(watch.problem() ?? '', /container broken: RWLayer/);
    docker.beforeInspect.clear();
    await shows('broken', 'web1');
    assert.equal(watch.problem(), null);
  });

  it('sees what happens to a container that Docker always needs long to describe', async () => {
    put('a', 'slow1');
    start();
    await shows('slow1');
    docker.beforeInspect.set(idOf('a'), () => sleep(3 * times.patienceMs));
    put('a', 'slow2');
    await shows('slow2');
    // Also where it happens while Docker is describing it.
    put('a', 'slow3');
    await sleep(2 * times.patienceMs);
    put('a', 'slow4');
    await shows('slow4');
  });

  it('waits for the first word of a container also where Docker was away meanwhile', async () => {
    put('a', 'slow');
    put('b', 'web');
    docker.beforeInspect.set(idOf('a'), () => sleep(4 * times.patienceMs));
    docker.beforeInspect.set(idOf('b'), async () => {
      docker.beforeInspect.delete(idOf('b'));
      throw new Error('ECONNRESET');
    });
    start();
    await until('it has looked', 2_000, () => watch.containers() ?? undefined);
    assert.deepEqual(names(), ['slow', 'web']);
  });

  it('asks no more often for one that Docker can’t describe, however often something has happened', async () => {
    put('a', 'broken');
    docker.beforeInspect.set(idOf('a'), async () => {
      throw Object.assign(new Error('RWLayer of container aaaa is unexpectedly nil'), { statusCode: 500 });
    });
    start();
    for (let count = 0; count < 8; count += 1) {
      docker.changed(idOf('a'));
      await sleep(1.5 * times.settleMs);
    }
    await sleep(2 * times.brokenMs);
    const before = docker.asked.inspections;
    await sleep(5 * times.brokenMs);
    const asked = docker.asked.inspections - before;
    assert.ok(asked >= 1 && asked <= 6, `${asked} inspections`);
  });

  it('looks again when something else is wanted', async () => {
    put('b', 'other', {});
    start();
    await until('it has asked', 2_000, () => watch.containers() ?? undefined);
    docker.containers.set(idOf('c'), dockerAnswer(idOf('c'), 'linked', {}));
    watch.wake();
    await shows('linked');
  });
});
