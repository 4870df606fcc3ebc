import assert from 'node:assert/strict';
import { stat } from 'node:fs/promises';
import { request } from 'node:http';
import { z } from 'zod';
import { anything, CliError, type Client, createClient, path } from '../../controller/cli/client.ts';
import { parseNodeName } from '../../controller/model/names.ts';
import {
  drainView,
  linkView,
  madeLinkView,
  madeRouteView,
  pauseMsMax,
  pauseView,
  proxyStatusView,
  releaseView,
  routeView,
  serviceDetailView,
  serviceView,
} from '../../controller/model/proxy-api.ts';
import { defaultLimits } from '../../proxy/gate/limits.ts';
import { proxyKeys } from '../../proxy/model/keys.ts';
import { containerDoc, createApiProxies } from '../support/api-proxies.ts';
import { until } from '../support/until.ts';

type Proxies = Awaited<ReturnType<typeof createApiProxies>>;
let proxies: Proxies;
let client: Client;

async function start(...others: readonly string[]): Promise<void> {
  proxies = await createApiProxies(others);
  client = createClient({ socketPath: proxies.socketPath, name: 'proxy' });
}

const web = containerDoc('web-1', { 'flock.service': 'web', 'flock.route': 'http://www.example.com -> 8080' });
const host2 = parseNodeName('host-2');
const route = (text: string, force = false) => client.send('POST', '/v1/routes', { route: text, force }, madeRouteView);
const link = (container: string, text: string) =>
  client.send('POST', '/v1/links', { container, link: text }, madeLinkView);
const pause = (body: object = {}) => client.send('POST', '/v1/services/web/pause', body, pauseView);
const settings = async () => (await proxies.store.get(proxyKeys.service(web.declared.service ?? assert.fail())))?.value;

async function refuses(promise: Promise<unknown>, code: string, text: RegExp): Promise<void> {
  const error = await promise.then(
    () => assert.fail(`expected ${code}`),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof CliError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, text);
}

describe('the API of the proxy', () => {
  afterEach(() => proxies.dispose());

  it('listens where only root can ask', async () => {
    await start();
    assert.equal((await stat(proxies.socketPath)).mode & 0o777, 0o600);
    await refuses(client.get('/v1/nothing', anything), 'invalid-request', /there is no GET/);
  });

  it('makes, lists and removes routes', async () => {
    await start();
    await proxies.run(web);
    const made = await route('https://*.example.com/shop -> web:8080 certificate=shop');
    assert.equal(made.route.address, 'https://*.example.com/shop');
    assert.deepEqual([made.route.certificate, made.route.state, made.notes], ['shop', 'serving', []]);
    const listed = await client.get('/v1/routes', z.array(routeView));
    assert.deepEqual(
      listed.map(({ address, origin }) => [address, origin.kind]),
      [
        ['http://www.example.com', 'label'],
        ['https://*.example.com/shop', 'flockctl'],
      ],
    );
    await client.send('DELETE', path`/v1/routes/${made.route.id}`, undefined, anything);
    assert.equal((await client.get('/v1/routes', z.array(routeView))).length, 1);
    const again = client.send('DELETE', path`/v1/routes/${made.route.id}`, undefined, anything);
    await refuses(again, 'route-not-found', /flockctl route ls/);
    const odd = client.send('DELETE', path`/v1/routes/${'../services/web'}`, undefined, anything);
    await refuses(odd, 'route-not-found', /there is no route/);
  });

  it('says whose a route is that it does not remove', async () => {
    await start();
    await proxies.run(web);
    const [listed] = await client.get('/v1/routes', z.array(routeView));
    assert.match(listed?.id ?? '', /\/flock\.route$/);
    const removed = client.send('DELETE', path`/v1/routes/${listed?.id ?? ''}`, undefined, anything);
    await refuses(removed, 'made-by-label', /label flock\.route of container web-1 on host-1/);
  });

  it('refuses routes that could not be served', async () => {
    await start();
    await proxies.run(web);
    await refuses(route('http://a -> wbe:80'), 'service-not-found', /did you mean web\?.*--force/);
    await refuses(route('www.example.com -> web:80'), 'invalid-option', /no address/);
    await refuses(route('http://a -> web'), 'invalid-option', /SERVICE:PORT/);
    await refuses(route('http://www.example.com:80/ -> web:81'), 'route-exists', /leads to web:8080.*flock\.route/);
    await refuses(route('tcp://:80 -> web:80'), 'port-taken', /port 80 is used for http/);
    await refuses(route('tcp://:24005 -> web:80'), 'port-taken', /24000 to 27999/);
    const { id } = (await route('tcp://:5432 -> web:5432')).route;
    await refuses(route('tcp://192.0.2.1:5432 -> web:5432'), 'port-taken', /5432/);
    await refuses(route('tcp://:5432 -> web:5432'), 'route-exists', new RegExp(`flockctl route rm ${id}`));
    const early = await route('http://later.example.com -> later:80', true);
    assert.equal(early.route.state, 'conflict');
    assert.match(early.route.reason ?? '', /flock\.service=later/);
    await refuses(route('http://later.example.com -> web:80'), 'route-exists', /later:80/);
  });

  it('shows what keeps a route from being served', async () => {
    await start('host-2');
    await proxies.run(web);
    proxies.problems.set('http *:80', 'address in use');
    const state = async () => {
      const [listed] = await client.get('/v1/routes', z.array(routeView));
      return [listed?.state, listed?.reason];
    };
    assert.deepEqual(await state(), ['problem', 'address in use']);
    proxies.problems.clear();
    assert.deepEqual(await state(), ['serving', null]);
    await proxies.run({ ...web, state: 'exited', healthy: false });
    assert.deepEqual(await state(), ['no-container', 'no healthy container: web-1 on host-1 is exited']);
  });

  it('makes, lists and removes links', async () => {
    await start();
    const app = containerDoc('app', { 'flock.link': '3306 -> mysql:3306' }, { linkPorts: { '3306': 24_000 } });
    const torn = containerDoc(
      'torn',
      { 'flock.link.a': '80 -> web:80', 'flock.link.b': '80 -> web:81' },
      { linkPorts: { '80': 24_001 }, node: host2, address: '172.17.0.9' },
    );
    await proxies.run(web, app, torn, containerDoc('mysql', { 'flock.service': 'mysql' }));
    const idle = await link('job', 'cache:6379 -> web:6379');
    assert.equal(idle.link.state, 'no-container');
    assert.match(idle.notes[0] ?? '', /no node has a container job/);
    await refuses(link('app', '3306 -> mysql:3306'), 'link-exists', /label flock\.link of container app/);
    await refuses(link(app.id.slice(0, 12), '3306 -> web:80'), 'link-exists', /leads to mysql:3306/);
    await refuses(link('job', '6379 -> mysql:6379'), 'link-exists', new RegExp(`link rm ${idle.link.id}`));
    await refuses(link('job', '6379 -> nothing:6379'), 'service-not-found', /there are mysql, web/);
    await refuses(link('a b', '6379 -> web:6379'), 'invalid-name', /container name/);
    const other = await link('app', 'db:3306 -> mysql:3306');
    assert.equal(other.link.state, 'serving');
    const listed = await client.get('/v1/links', z.array(linkView));
    assert.deepEqual(listed.map(({ container, host, port, state }) => [container, host, port, state]).toSorted(), [
      ['app', 'db', 3306, 'serving'],
      ['app', 'mysql', 3306, 'serving'],
      ['job', 'cache', 6379, 'no-container'],
      ['torn', 'web', 80, 'conflict'],
      ['torn', 'web', 80, 'serving'],
    ]);
    await client.send('DELETE', path`/v1/links/${idle.link.id}`, undefined, anything);
    await refuses(
      client.send('DELETE', path`/v1/links/${idle.link.id}`, undefined, anything),
      'link-not-found',
      /link ls/,
    );
    const label = `${app.id.slice(0, 12)}/flock.link`;
    await refuses(
      client.send('DELETE', path`/v1/links/${label}`, undefined, anything),
      'made-by-label',
      /of container app/,
    );
  });

  it('shows services', async () => {
    await start('host-2');
    const begun = { node: host2, healthy: false, starting: true, closedPorts: [443, 8080] };
    await proxies.run(web, containerDoc('web-2', { 'flock.service': 'web' }, begun));
    const [found] = await client.get('/v1/services', z.array(serviceView));
    assert.deepEqual(found, {
      ...{ name: 'web', stateful: false, balance: 'round-robin', containers: { total: 2, healthy: 1, starting: 1 } },
      ...{ nodes: ['host-1', 'host-2'], routes: 1, links: 0, pause: null },
      inFlight: { requests: 3, tunnels: 2, held: 1 },
    });
    await pause();
    const detail = await client.get('/v1/services/web', serviceDetailView);
    assert.deepEqual(
      detail.paused.map(({ name, done }) => [name, done]),
      [
        ['host-1', true],
        ['host-2', true],
      ],
    );
    assert.equal(detail.routes[0]?.state, 'paused');
    assert.deepEqual(
      detail.containers.map(({ name, condition }) => [name, condition]),
      [
        ['web-1', 'running'],
        ['web-2', 'starting, and takes no connections at port 443 and 8080 yet'],
      ],
    );
    await refuses(client.get('/v1/services/wbe', serviceDetailView), 'service-not-found', /did you mean web/);
    await refuses(client.get('/v1/services/Web', serviceDetailView), 'invalid-name', /service name/);
  });

  it('shows proxies, and labels that can not be used', async () => {
    await start('host-2', 'host-3');
    proxies.kill('host-2');
    proxies.addMember('host-4');
    await proxies.run(containerDoc('odd', { 'flock.service': 'odd', 'flock.route': 'nonsense' }));
    const status = await until('both proxies have spoken', 2_000, async () => {
      const found = await client.get('/v1/proxies', proxyStatusView);
      return found.nodes.filter(({ proxy }) => proxy !== null).length === 3 ? found : undefined;
    });
    assert.deepEqual(
      status.nodes.map(({ name, alive, proxy }) => [name, alive, proxy !== null]),
      [
        ['host-1', true, true],
        ['host-2', false, true],
        ['host-3', true, true],
        ['host-4', true, false],
      ],
    );
    assert.match(status.problems[0]?.text ?? '', /label flock\.route/);
  });
});

describe('a pause through the API', () => {
  afterEach(() => proxies.dispose());

  it('is held by every living node, drained and released', async () => {
    await start('host-2', 'host-3', 'host-4');
    proxies.kill('host-4');
    proxies.behave('host-4', { acknowledges: false });
    proxies.behave('host-2', { leaves: { requests: 1, tunnels: 4, tunnelsClosed: 4 } });
    await proxies.run(web);
    const paused = await pause({ forMs: 60_000 });
    assert.deepEqual(
      paused.nodes.map(({ name, done }) => [name, done]),
      [
        ['host-1', true],
        ['host-2', true],
        ['host-3', true],
      ],
    );
    assert.ok(paused.untilMs > Date.now() + 50_000 && paused.untilMs <= Date.now() + 60_000);
    await refuses(pause(), 'service-paused', /flockctl service release web/);
    const drained = await client.send('POST', '/v1/services/web/drain', { forMs: 100 }, drainView);
    assert.deepEqual(drained.nodes[1], { name: 'host-2', requests: 1, tunnels: 4, tunnelsClosed: 4 });
    const long = client.send('POST', '/v1/services/web/drain', { forMs: 100_000 }, drainView);
    await refuses(long, 'invalid-option', /--extend/);
    const released = await client.send('POST', '/v1/services/web/release', {}, releaseView);
    assert.deepEqual([released.wasPaused, released.nodes.length], [true, 3]);
    const again = await client.send('POST', '/v1/services/web/release', {}, releaseView);
    assert.deepEqual(again, { service: 'web', wasPaused: false, nodes: [] });
    const drain = client.send('POST', '/v1/services/web/drain', {}, drainView);
    await refuses(drain, 'not-paused', /flockctl service pause web/);
  });

  it('is taken back when a node does not hold it in time', async () => {
    await start('host-2');
    await proxies.run(web);
    proxies.behave('host-2', { acknowledges: false, problems: { 'http *:80': 'x', 'layer kernel': 'nft is missing' } });
    const late = pause({ waitMs: 300 });
    await refuses(late, 'not-acknowledged', /taken back.*Not on: host-2 \(layer kernel: nft is missing\)/);
    assert.deepEqual(JSON.parse((await settings()) ?? ''), { name: 'web', pause: null });
    await refuses(pause({ waitMs: 100, keep: true }), 'not-acknowledged', /--keep/);
    assert.notEqual(JSON.parse((await settings()) ?? '').pause, null);
  });

  it('waits for a living node that has never said anything', async () => {
    await start('host-2');
    await proxies.run(web);
    proxies.addMember('host-3');
    await refuses(pause({ waitMs: 100 }), 'not-acknowledged', /host-3 \(no proxy has ever run there/);
  });

  it('is extended without a gap, and holds as before where that fails', async () => {
    await start('host-2');
    await proxies.run(web);
    await refuses(pause({ extend: true }), 'not-paused', /pauses it/);
    const first = await pause({ forMs: 30_000 });
    const second = await pause({ forMs: 60_000, extend: true });
    assert.notEqual(first.id, second.id);
    proxies.behave('host-2', { acknowledges: false });
    await refuses(pause({ forMs: 90_000, extend: true, waitMs: 100 }), 'not-acknowledged', /holds as before/);
    assert.equal(JSON.parse((await settings()) ?? '').pause.id, second.id);
  });

  it('is taken back when who asked has left', async () => {
    await start('host-2');
    await proxies.run(web);
    proxies.behave('host-2', { acknowledges: false });
    const asking = request({
      ...{ socketPath: proxies.socketPath, method: 'POST', path: '/v1/services/web/pause' },
      headers: { 'content-type': 'application/json' },
    });
    asking.on('error', () => {});
    asking.end('{}');
    await until('the pause is stored', 2_000, async () => ((await settings()) === undefined ? undefined : true));
    asking.destroy();
    await until('it is gone', 2_000, async () =>
      JSON.parse((await settings()) ?? '').pause === null ? true : undefined,
    );
  });

  it('ends at its time, and may be made again', async () => {
    await start();
    await proxies.run(web);
    const first = await pause({ forMs: 1_000 });
    const second = await until('it is over', 3_000, () => pause().catch(() => undefined));
    assert.ok(Date.now() >= first.untilMs);
    assert.notEqual(first.id, second.id);
  });

  it('says when a drain or a release is not acknowledged', async () => {
    await start('host-2');
    await proxies.run(web);
    await pause();
    proxies.behave('host-2', { leaves: null });
    const drained = client.send('POST', '/v1/services/web/drain', { forMs: 0 }, drainView);
    await refuses(drained, 'not-acknowledged', /host-2.*still paused/);
    proxies.behave('host-2', { hangs: true });
    const released = client.send('POST', '/v1/services/web/release', { waitMs: 200 }, releaseView);
    await refuses(released, 'not-acknowledged', /is released, but.*Not yet: host-2/);
  });

  it('has the limits of the gate', async () => {
    await start();
    await proxies.run(web);
    assert.ok(pauseMsMax <= defaultLimits.pauseMsMax);
    await refuses(pause({ forMs: pauseMsMax + 1 }), 'invalid-request', /from 1s to 120s/);
    await refuses(pause({ forMs: 1 }), 'invalid-request', /from 1s to 120s/);
  });
});
