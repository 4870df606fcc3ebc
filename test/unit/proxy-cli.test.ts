import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describeDrain, formatDetail } from '../../controller/cli/proxy-service-commands.ts';
import { formatStatus } from '../../controller/cli/proxy-status-commands.ts';
import { makeAuthority } from '../../controller/cluster/ca.ts';
import { serviceDetailView } from '../../controller/model/proxy-api.ts';
import { containerDoc, createApiProxies } from '../support/api-proxies.ts';

let proxies: Awaited<ReturnType<typeof createApiProxies>>;
const web = containerDoc('web-1', { 'flock.service': 'web', 'flock.route': 'http://www.example.com -> 8080' });

describe('flockctl and the proxy', () => {
  beforeEach(async () => {
    proxies = await createApiProxies(['host-2']);
    await proxies.run(web);
  });
  afterEach(() => proxies.dispose());

  it('makes, lists and removes routes and links', async () => {
    const added = await proxies.flockctl('route', 'add', 'tcp://:3306 -> web:3306 proxy-protocol=v2');
    assert.match(
      added,
      /^ID +ADDRESS +SERVICE +MADE BY +STATE +REASON\n\w+ +tcp:\/\/:3306 +web:3306 +flockctl +serving$/,
    );
    assert.match(
      await proxies.flockctl('route', 'ls'),
      /http:\/\/www\.example\.com +web:8080 +flock\.route of web-1 on host-1 +serving/,
    );
    const routes = JSON.parse(await proxies.flockctl('--output', 'json', 'route', 'ls'));
    assert.deepEqual([routes.length, routes[1].proxyProtocol], [2, true]);
    assert.equal(await proxies.flockctl('route', 'rm', routes[1].id), `${routes[1].id}`);
    assert.match(
      await proxies.refused('route', 'rm', routes[0].id),
      /^flockctl: route .* is made by label flock\.route/,
    );

    const link = JSON.parse(await proxies.flockctl('-o', 'json', 'link', 'add', 'web-1', '80 -> web:80')).link;
    assert.match(await proxies.flockctl('link', 'ls'), /web-1 +host-1 +web:80 +web:80 +flockctl/);
    assert.equal(await proxies.flockctl('link', 'rm', link.id), `${link.id}`);
  });

  it('pauses, drains and releases a service', async () => {
    assert.match(await proxies.flockctl('service', 'ls'), /web +1\/1 +host-1 +1 +0 +serving +3 +2 +1/);
    assert.match(
      await proxies.flockctl('service', 'pause', 'web', '--for', '60s'),
      /^web is paused until .*\n\nNODE +HOLDS +REASON\nhost-1 +yes\nhost-2 +yes$/,
    );
    assert.match(await proxies.flockctl('service', 'inspect', 'web'), /State +paused, \w+ left/);
    assert.match(await proxies.flockctl('service', 'drain', 'web', '--for', '50ms'), /^Nothing is left in flight\./);
    assert.match(await proxies.flockctl('service', 'release', 'web'), /^web is released\.\n\nNODE +RELEASED/);
    assert.equal(await proxies.flockctl('service', 'release', 'web'), 'web was not paused (any more).');
  });

  it('tells failures in a line, with their code to programs', async () => {
    assert.match(
      await proxies.refused('service', 'pause', 'wbe'),
      /^flockctl: there is no service "wbe"; did you mean web\?$/,
    );
    const { error } = JSON.parse(await proxies.refused('--output', 'json', 'service', 'drain', 'web'));
    assert.equal(error.code, 'not-paused');
    assert.match(await proxies.refused('service', 'pause', 'web', '--for', 'soon'), /invalid duration "soon"/);
    const away = join(proxies.folder, 'none.sock');
    assert.match(
      await proxies.refused('--proxy-socket', away, 'route', 'ls'),
      /the flock proxy does not answer at .*none\.sock: .*docker logs flock-proxy/,
    );
    const missing = await proxies.refused('certificate', 'add', 'a', '--cert', join(proxies.folder, 'none.pem'));
    assert.match(missing, /can't read .*none\.pem/);
  });

  it('keeps certificates, whose keys it never shows', async () => {
    const { certificate, key } = makeAuthority('test', Date.now());
    const file = join(proxies.folder, 'pair.pem');
    await writeFile(file, certificate + key);
    const added = await proxies.flockctl('certificate', 'add', 'example', '--cert', file);
    assert.match(added, /^NAME +COVERS +EXPIRES +ROUTES\nexample +- +\d{4}-\d\d-\d\d +0$/);
    const listed = await proxies.flockctl('-o', 'json', 'certificate', 'ls');
    assert.equal(JSON.parse(listed)[0].name, 'example');
    assert.doesNotMatch(listed, /PRIVATE/);
    assert.equal(await proxies.flockctl('certificate', 'rm', 'example'), 'example');
    assert.match(await proxies.refused('certificate', 'rm', 'example'), /no certificate "example"/);
  });
});

describe('what flockctl prints of the proxy', () => {
  it('sums up a drain', () => {
    const node = { name: 'host-1', requests: 0, tunnels: 0, tunnelsClosed: 0 };
    assert.equal(describeDrain([node]), 'Nothing is left in flight.');
    assert.equal(
      describeDrain([
        { ...node, requests: 1 },
        { ...node, tunnels: 4, tunnelsClosed: 3 },
      ]),
      'The time is over: 4 long-lived connections were left, 3 ended. 1 request runs on.',
    );
  });

  it('shows everything about a service that has little', () => {
    const service = {
      ...{ name: 'web', stateful: true, balance: 'round-robin', containers: { total: 0, healthy: 0, starting: 0 } },
      ...{ nodes: [], routes: 0, links: 0, pause: null, inFlight: null },
    };
    const text = formatDetail({
      ...{ service, containers: [], routes: [], links: [], paused: [], drained: [], problems: ['it is odd'] },
    });
    assert.match(text, /State +no healthy container\n/);
    assert.match(text, /In flight here +unknown\n\n! it is odd\n$/);
  });

  it('says that a service is starting while none of its containers is healthy yet', () => {
    const service = {
      ...{ name: 'web', stateful: true, balance: 'round-robin', containers: { total: 1, healthy: 0, starting: 1 } },
      ...{ nodes: ['host-1'], routes: 0, links: 0, pause: null, inFlight: null },
    };
    const container = {
      ...{ id: 'a', name: 'web-1', node: 'host-1', state: 'running', healthy: false, address: '172.17.0.2' },
      condition: 'starting, and takes no connections at port 8080 yet',
    };
    const text = formatDetail({
      ...{ service, containers: [container], routes: [], links: [], paused: [], drained: [], problems: [] },
    });
    assert.match(text, /State +starting\n/);
    assert.match(text, /\nweb-1 +host-1 +starting, and takes no connections at port 8080 yet +172\.17\.0\.2\n/);
    const { condition: _condition, ...ofBefore } = container;
    const rest = { routes: [], links: [], paused: [], drained: [], problems: [] };
    const old = formatDetail(serviceDetailView.parse({ service, containers: [ofBefore], ...rest }));
    assert.match(old, /\nweb-1 +host-1 +running +172\.17\.0\.2\n/, 'a proxy that is not upgraded yet');
  });

  it('lists the problems of all proxies', () => {
    const proxy = { address: '192.0.2.1', version: '1', startedAtMs: Date.now(), pauses: 0 };
    const text = formatStatus({
      nodes: [
        { name: 'host-1', alive: true, proxy: { ...proxy, problems: [{ where: 'http *:80', text: 'in use' }] } },
        { name: 'host-2', alive: true, proxy: null },
      ],
      problems: [{ where: 'container web on host-1', text: 'label flock.rout' }],
    });
    assert.match(text, /host-1 +up .* 1\nhost-2 +NO PROXY/);
    assert.match(text, /\n\nhost-1: http \*:80: in use\ncontainer web on host-1: label flock\.rout\n$/);
  });
});
