import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { keys } from '../../controller/model/cluster.ts';
import { openEmbeddedStore } from '../../controller/store/embedded.ts';
import type { MemoryStore } from '../../controller/store/memory.ts';
import { type Entry, type Store, storeLimits } from '../../controller/store/store.ts';
import { carry, madeOf, moveMade } from '../../proxy/documents/carrying.ts';
import { createPublisher, type Publisher } from '../../proxy/documents/publisher.ts';
import { createStoreView, type StoreView } from '../../proxy/documents/view.ts';
import { planWrites, strangers, tooLarge } from '../../proxy/documents/writes.ts';
import { proxyKeys } from '../../proxy/model/keys.ts';
import { parseRouteText } from '../../proxy/model/labels.ts';
import { parseServiceName } from '../../proxy/model/names.ts';
import type { RouteDoc } from '../../proxy/model/records.ts';
import { containerDoc } from '../support/api-proxies.ts';
import { planNode } from '../support/move-documents.ts';
import { createTestStore, here, idOf, silent, there } from '../support/proxy-fakes.ts';
import { until } from '../support/until.ts';

const web = parseServiceName('web');
const route = (id: string, text = 'http://www.example.com -> 8080'): RouteDoc => ({
  id,
  service: web,
  createdAtMs: 1,
  ...parseRouteText(text),
});
const set = (store: Store, key: string, value: string) => store.transact([{ kind: 'set', key, value }]);
const own = proxyKeys.node(here);
const first = proxyKeys.container(here, idOf('a'));
const second = proxyKeys.container(here, idOf('b'));

describe('what is to be written', () => {
  it('is what differs, each guarded by what was seen', () => {
    const written = new Map([
      ['a', { value: '1', index: '7' }],
      ['b', { value: '1', index: '8' }],
      ['c', { value: '1', index: '9' }],
    ]);
    const wanted = new Map([
      ['a', '1'],
      ['b', '2'],
      ['d', '1'],
    ]);
    assert.deepEqual(planWrites(written, wanted), [
      [
        { kind: 'compare-and-set', key: 'b', value: '2', index: '8' },
        { kind: 'compare-and-set', key: 'd', value: '1', index: null },
        { kind: 'compare-and-delete', key: 'c', index: '9' },
      ],
    ]);
    assert.deepEqual(planWrites(new Map([['a', { value: '1', index: '7' }]]), new Map([['a', '1']])), []);
  });

  it('fits into the store’s limits', () => {
    const value = 'x'.repeat(100 * 1024);
    const wanted = new Map(Array.from({ length: 200 }, (_, n) => [`k${n}`, n < 5 ? value : 'small']));
    const written = new Map(Array.from({ length: 100 }, (_, n) => [`old${n}`, { value: '', index: '1' }]));
    const transactions = planWrites(written, wanted);
    assert.equal(transactions.flat().length, 300);
    for (const operations of transactions) {
      const count = operations.reduce((sum, { kind }) => sum + (kind === 'compare-and-delete' ? 2 : 1), 0);
      assert.ok(count <= storeLimits.operationsMax);
      assert.ok(JSON.stringify(operations).length <= storeLimits.transactionBytesMax + 16 * 1024);
    }
  });

  it('leaves out what no store takes', () => {
    const wanted = new Map([
      ['large', 'x'.repeat(storeLimits.valueBytesMax + 1)],
      ['small', ''],
    ]);
    assert.deepEqual(
      planWrites(new Map(), wanted)
        .flat()
        .map(({ key }) => key),
      ['small'],
    );
    assert.deepEqual(tooLarge(wanted), ['large']);
  });

  it('names the nodes that are gone, whatever their keys look like', () => {
    const entry = (key: string) => ({ key, value: '', index: '1', session: null });
    const entries = [own, first, proxyKeys.container(there, idOf('c')), 'proxy/nodes/Bad_Name', 'proxy/routes/x'].map(
      entry,
    );
    assert.deepEqual(
      strangers(entries, (node) => node === here),
      [there],
    );
  });
});

describe('the publisher', () => {
  let server: MemoryStore;
  let store: Store;
  let stop: AbortController;
  let running: Promise<void>;
  let publisher: Publisher;

  beforeEach(() => {
    server = createTestStore();
    store = server.connect('here');
    stop = new AbortController();
    publisher = createPublisher({ store, node: here, isCluster: true, log: silent, retryMs: 20 });
    running = publisher.run(stop.signal);
  });
  afterEach(async () => {
    stop.abort();
    await running;
    server.close();
  });

  const content = () => Object.fromEntries(server.entries().map(({ key, value }) => [key, value]));
  const becomes = (what: string, wanted: Readonly<Record<string, string>>) =>
    until(what, 2_000, () => {
      const now = content();
      return JSON.stringify(Object.entries(now).sort()) === JSON.stringify(Object.entries(wanted).sort()) || undefined;
    });
  const indexes = () => server.entries().map(({ key, index }) => `${key} ${index}`);
  const see = () => publisher.seen(server.entries(), () => true);

  it('writes what is wanted, deletes what is not any more, and nothing else', async () => {
    await set(store, 'proxy/routes/x', 'of people');
    await set(store, proxyKeys.container(there, idOf('c')), 'of another node');
    const others = { ...content() };
    publisher.want(
      new Map([
        [own, 'n1'],
        [first, 'c1'],
        [second, 'c2'],
      ]),
    );
    await becomes('all is written', { ...others, [own]: 'n1', [first]: 'c1', [second]: 'c2' });
    publisher.want(
      new Map([
        [own, 'n2'],
        [second, 'c2'],
      ]),
    );
    await becomes('a container is gone', { ...others, [own]: 'n2', [second]: 'c2' });
  });

  it('puts right what a process before it has left', async () => {
    await set(store, first, 'old');
    await set(store, second, 'same');
    const before = server.entries().find(({ key }) => key === second)?.index;
    publisher.want(
      new Map([
        [own, 'n'],
        [second, 'same'],
      ]),
    );
    await becomes('it is as wanted', { [own]: 'n', [second]: 'same' });
    assert.equal(server.entries().find(({ key }) => key === second)?.index, before);
  });

  it('writes nothing while nothing changes, and also not because of a watch that is late', async () => {
    publisher.want(
      new Map([
        [own, 'n'],
        [first, 'c1'],
      ]),
    );
    await becomes('all is written', { [own]: 'n', [first]: 'c1' });
    const stale = server.entries();
    publisher.want(
      new Map([
        [own, 'n'],
        [first, 'c2'],
      ]),
    );
    await becomes('the change is written', { [own]: 'n', [first]: 'c2' });
    const before = indexes();
    for (let round = 0; round < 5; round += 1) {
      publisher.seen(round % 2 === 0 ? stale : server.entries(), () => true);
      publisher.want(
        new Map([
          [own, 'n'],
          [first, 'c2'],
        ]),
      );
      await sleep(10);
    }
    assert.deepEqual(indexes(), before);
  });

  it('puts back what somebody else has changed or removed', async () => {
    publisher.want(
      new Map([
        [own, 'n'],
        [first, 'c1'],
      ]),
    );
    await becomes('all is written', { [own]: 'n', [first]: 'c1' });
    await set(store, own, 'forged');
    await store.transact([{ kind: 'delete', key: first }]);
    await set(store, second, 'forged');
    see();
    await becomes('it is as wanted', { [own]: 'n', [first]: 'c1' });
  });

  it('writes later what it could not while the store was away', async () => {
    publisher.want(new Map([[own, 'n1']]));
    await becomes('it is written', { [own]: 'n1' });
    // What is not answered may have been done all the same.
    server.cut('here', 'answers');
    publisher.want(new Map([[own, 'n2']]));
    await until('it is told', 8_000, () => publisher.problem() ?? undefined);
    publisher.want(new Map([[own, 'n3']]));
    server.heal('here');
    await becomes('the newest is written', { [own]: 'n3' });
    await until('all is well', 2_000, () => (publisher.problem() === null ? true : undefined));
  });

  it('removes what nodes have left that are gone, and nothing of those that are there still', async () => {
    const left = [proxyKeys.node(there), proxyKeys.container(there, idOf('c')), proxyKeys.container(there, idOf('d'))];
    for (const key of left) await set(store, key, 'left');
    await set(store, keys.node(there), 'a member');
    const before = content();
    // The cluster has it, though this node has not seen that yet.
    publisher.seen(server.entries(), (node) => node === here);
    await sleep(50);
    assert.deepEqual(content(), before);
    await store.transact([{ kind: 'delete', key: keys.node(there) }]);
    publisher.seen(server.entries(), (node) => node === here);
    await becomes('nothing is left', {});
  });
});

describe('the view of the store', () => {
  let server: MemoryStore;
  let store: Store;
  let view: StoreView;
  /** Whether nodes without a session answer. */
  let answers: boolean;
  let stop: AbortController;
  let running: Promise<void>;

  beforeEach(() => {
    server = createTestStore();
    store = server.connect('here');
    stop = new AbortController();
    answers = true;
    const reach = { ask: async () => answers, everyMs: 20 };
    view = createStoreView({ store, isCluster: true, onChange: () => {}, log: silent, probeMs: 20, reach });
    running = view.run(stop.signal);
  });
  afterEach(async () => {
    stop.abort();
    await running;
    server.close();
  });

  const complete = () => until('all was seen', 2_000, () => view.documents() ?? undefined);
  const routes = () => view.documents()?.routes.map(({ id }) => id);

  it('is complete when all was seen, and follows changes', async () => {
    assert.equal(view.documents(), null);
    await complete();
    await set(store, proxyKeys.route('r1'), JSON.stringify(route('r1')));
    await until('the route is seen', 2_000, () => (routes()?.join() === 'r1' ? true : undefined));
    await store.transact([{ kind: 'delete', key: proxyKeys.route('r1') }]);
    await until('it is gone', 2_000, () => (routes()?.length === 0 ? true : undefined));
  });

  it('knows who is a member, also by a document that it can’t read, and who is alive', async () => {
    await complete();
    const session = await store.createSession({ name: 'a test', ttlMs: 60_000, lockDelayMs: 0 });
    await set(store, keys.node(here), 'of a later version');
    await set(store, keys.node(there), '{}');
    await store.transact([{ kind: 'lock', key: keys.alive(there), value: '{}', session }]);
    const members = () => JSON.stringify([...(view.documents()?.members ?? [])]);
    const living = JSON.stringify([
      [here, { alive: false }],
      [there, { alive: true }],
    ]);
    await until('both are there', 2_000, () => (members() === living ? true : undefined));
    server.endSession(session);
    await until('one is dead', 2_000, () => (members() === living.replace('true', 'false') ? true : undefined));

    // Its document says where it can be asked.
    const { alive: _alive, space: _space, ...doc } = planNode(there);
    await set(store, keys.node(there), JSON.stringify(doc));
    const reached = living.replace('true', 'false,"reached":true');
    await until('it answers all the same', 2_000, () => (members() === reached ? true : undefined));
    answers = false;
    await until('it does not any more', 2_000, () =>
      members() === living.replace('true', 'false') ? true : undefined,
    );
  });

  it('leaves out what it can’t read or what is in a wrong place, says so, and shows the rest', async () => {
    await set(store, proxyKeys.route('good'), JSON.stringify(route('good')));
    await set(store, proxyKeys.route('garbage'), '{"id":');
    await set(store, proxyKeys.route('shape'), JSON.stringify({ ...route('shape'), targetPort: 0 }));
    await set(store, proxyKeys.route('moved'), JSON.stringify(route('elsewhere')));
    await until('all of them were seen', 2_000, () => (view.problems().length === 3 ? true : undefined));
    assert.deepEqual(routes(), ['good']);
    const problems = view.problems().map(({ where, text }) => `${where}: ${text}`);
    assert.match(problems.join('\n'), /proxy\/routes\/shape.*targetPort/);
    assert.match(problems.join('\n'), /proxy\/routes\/moved.*belongs to proxy\/routes\/elsewhere/);
  });

  // Later than any run of all tests ends: it is made when they are loaded.
  const pause = { id: 'p', untilMs: Date.now() + 24 * 3_600_000, drain: null };
  const service = (now: typeof pause | null) =>
    set(store, proxyKeys.service(web), JSON.stringify({ name: web, pause: now }));
  const stopView = async () => {
    stop.abort();
    await running;
    stop = new AbortController();
  };

  it('shows a release with what it relies on, however late the watch of that is', async () => {
    await stopView();
    // Nothing comes from this watch any more once it has answered.
    const late: Store = {
      ...store,
      async *watch(prefix, signal, onFault) {
        for await (const entries of store.watch(prefix, signal, onFault)) {
          yield entries;
          if (prefix === `${proxyKeys.containers}/`)
            await new Promise((done) => signal.addEventListener('abort', done));
        }
      },
    };
    view = createStoreView({ store: late, isCluster: true, onChange: () => {}, log: silent, probeMs: 20 });
    running = view.run(stop.signal);
    await complete();
    await service(pause);
    await until('it is paused', 2_000, () => view.documents()?.services[0]?.pause ?? undefined);
    const container = containerDoc('web-1', { 'flock.service': 'web' }, { node: there });
    await set(store, proxyKeys.container(there, container.id), JSON.stringify(container));
    await service(null);
    const released = await until('it is released', 2_000, () => {
      const now = view.documents();
      return now?.services[0]?.pause === null ? now : undefined;
    });
    assert.deepEqual(
      released.containers.map(({ id }) => id),
      [container.id],
    );
  });

  /** Its watch of services goes back once to what was before any, as that of a leader that was just replaced; `list` as given. */
  async function goingBack(
    list: (prefix: string, look: () => Promise<readonly Entry[]>) => Promise<readonly Entry[]>,
    untilMs = pause.untilMs,
    earlier: readonly (typeof pause)[] = [],
  ) {
    await stopView();
    let goBack: () => void = () => {};
    const isBack = new Promise<void>((done) => {
      goBack = done;
    });
    const old: Store = {
      ...store,
      list: async (prefix, options) => await list(prefix, () => store.list(prefix, options)),
      async *watch(prefix, signal, onFault) {
        const all = store.watch(prefix, signal, onFault);
        if (prefix !== `${proxyKeys.services}/`) return yield* all;
        const seen: (readonly Entry[])[] = [];
        for await (const entries of all) {
          seen.push(entries);
          yield entries;
          if (entries.length === 0) continue;
          if (seen.length <= 1 + earlier.length) continue;
          await isBack;
          yield seen.at(-2) ?? [];
          return yield* all;
        }
      },
    };
    view = createStoreView({ store: old, isCluster: true, onChange: () => {}, log: silent, probeMs: 20 });
    running = view.run(stop.signal);
    await complete();
    for (const one of earlier) {
      await service(one);
      await until('it is seen', 2_000, () => view.documents()?.services[0]?.pause?.id === one.id || undefined);
    }
    await service({ ...pause, untilMs });
    const now = () => view.documents()?.services.find(({ name }) => name === web)?.pause?.id;
    await until('it is paused', 2_000, now);
    return { goBack, now };
  }

  it('takes no pause for released because a watch goes back to what was before it', async () => {
    let looks = 0;
    const { goBack, now } = await goingBack(async (prefix, look) => {
      if (prefix === `${proxyKeys.services}/`) looks += 1;
      return await look();
    });
    goBack();
    await until('it is looked at', 2_000, () => looks > 0 || undefined);
    await sleep(100);
    assert.equal(now(), 'p');
    await service(null);
    await until('it is released', 2_000, () => now() === undefined || undefined);
  });

  it('nor because the store does not say then what is so, nor because the pause was made longer', async () => {
    let looks = 0;
    let isAway = true;
    const { goBack, now } = await goingBack(async (prefix, look) => {
      if (prefix === `${proxyKeys.services}/`) looks += 1;
      if (isAway) throw new Error('No cluster leader');
      return await look();
    });
    await service({ ...pause, id: 'longer' });
    goBack();
    await until('it is looked at again', 5_000, () => looks > 2 || undefined);
    assert.equal(now(), 'p');
    isAway = false;
    await until('the longer one is seen', 5_000, () => now() === 'longer' || undefined);
    await service(null);
    await until('it is released', 2_000, () => now() === undefined || undefined);
  });

  it('nor for one that is over by now because of one that was shorter', async () => {
    const { goBack, now } = await goingBack(async (_prefix, look) => await look(), pause.untilMs, [
      { ...pause, id: 'short', untilMs: Date.now() + 100 },
    ]);
    goBack();
    await sleep(300);
    assert.equal(now(), 'p');
  });

  it('shows a release with where the containers are, however long the store takes for that', async () => {
    let isAway = true;
    const { goBack, now } = await goingBack(async (prefix, look) => {
      if (isAway && prefix === `${proxyKeys.containers}/`) throw new Error('rpc error');
      return await look();
    });
    await service(null);
    goBack();
    await sleep(600);
    assert.equal(now(), 'p');
    isAway = false;
    await until('it is released', 2_000, () => now() === undefined || undefined);
  });

  it('lets a pause go at its own time where nobody says whether it is released', async () => {
    const fails = async () => await Promise.reject(new Error('No cluster leader'));
    const { goBack, now } = await goingBack(fails, Date.now() + 1_500);
    goBack();
    await until('it is let go', 5_000, () => now() === undefined || undefined);
  });

  it('keeps what it has seen while the store is away, and tells when it is back', async () => {
    await set(store, proxyKeys.route('r1'), JSON.stringify(route('r1')));
    await until('the route is seen', 2_000, () => (routes()?.join() === 'r1' ? true : undefined));
    server.cut('here');
    await until('it is told to be away', 8_000, () => view.fault() ?? undefined);
    assert.deepEqual(routes(), ['r1']);
    server.heal('here');
    await until('it is told to be back', 2_000, () => (view.fault() === null ? true : undefined));
  });
});

describe('what people have made', () => {
  let folder = '';
  let server: MemoryStore;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'flock-proxy-'));
    server = createTestStore();
  });
  afterEach(async () => {
    server.close();
    await rm(folder, { recursive: true });
  });

  it('moves from the host’s own file to the cluster, takes nothing there away, and does not come back', async () => {
    const file = await openEmbeddedStore(join(folder, 'proxy.db'));
    const cluster = server.connect('here');
    const wanted = Array.from({ length: 150 }, (_, n) => route(`r${n}`));
    for (const one of wanted) await set(file, proxyKeys.route(one.id), JSON.stringify(one));
    await set(file, proxyKeys.service(web), '{"name":"web","pause":null}');
    await set(file, own, 'of the node');
    await set(cluster, proxyKeys.route('r7'), 'the cluster’s own');
    const kept = [proxyKeys.route('r7')];
    assert.deepEqual(await moveMade(file, cluster), { moved: 150, kept });
    assert.deepEqual(await moveMade(file, cluster), { moved: 0, kept });
    const there = new Map(server.entries().map(({ key, value }) => [key, value]));
    assert.equal(there.size, 151);
    assert.equal(there.get(proxyKeys.route('r7')), 'the cluster’s own');
    assert.equal(there.get(proxyKeys.route('r8')), JSON.stringify(wanted[8]));
    assert.deepEqual(
      (await file.list('')).map(({ key }) => key),
      [own, ...kept].toSorted(),
    );
    await file.close();
  });

  it('is carried back from what was seen last', async () => {
    const documents = {
      containers: [],
      nodes: [],
      routes: [route('r1')],
      links: [],
      services: [{ name: web, pause: null }],
      certificates: [{ name: 'shop', createdAtMs: 1, certificate: 'c', key: 'k' }],
      members: null,
    };
    const store = server.connect('here');
    await set(store, proxyKeys.service(web), 'kept');
    await carry(madeOf(documents), store);
    const made = server.entries().map(({ key, value }) => [key, value]);
    assert.deepEqual(made, [
      ['proxy/certificates/shop', JSON.stringify(documents.certificates[0])],
      ['proxy/routes/r1', JSON.stringify(documents.routes[0])],
      ['proxy/services/web', 'kept'],
    ]);
  });
});
