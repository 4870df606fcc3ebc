import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseNodeName } from '../../controller/model/names.ts';
import { parseRouteText } from '../../proxy/model/labels.ts';
import { parseHostPattern, parseServiceName } from '../../proxy/model/names.ts';
import type { LinkDoc, ProxyRecords, RouteDoc, ServiceDoc, UpstreamDoc } from '../../proxy/model/records.ts';
import { until } from '../support/until.ts';
import { type Asking, addresses, type ContainerName, createNet, type Net } from './proxy-kernel-net.ts';

const peers = [addresses.a, addresses.b];
let generation = 0;
const localnet = '/proc/sys/net/ipv4/conf/all/route_localnet';
const bridgeFilter = '/proc/sys/net/bridge/bridge-nf-call-iptables';

function service(name: string, more: Partial<ServiceDoc> = {}): ServiceDoc {
  return {
    name: parseServiceName(name),
    createdAtMs: 0,
    balance: 'round-robin',
    stateful: false,
    pause: null,
    ...more,
  };
}
function route(text: string, serviceName = 'db'): RouteDoc {
  return { id: text, service: parseServiceName(serviceName), createdAtMs: 0, ...parseRouteText(text) };
}
function upstream(container: ContainerName, serviceName = 'db'): UpstreamDoc {
  const node = container === 'far' ? 'b' : 'a';
  return {
    container,
    service: parseServiceName(serviceName),
    node: parseNodeName(node),
    startedAtMs: 0,
    healthy: true,
    address: addresses[container],
    inner: { address: addresses[node], ports: { '80': 24_080 } },
  };
}
function link(serviceName: string, host: string | null): LinkDoc {
  const place = { node: parseNodeName('a'), client: addresses.app, gateway: '172.31.0.1', port: 24_306 };
  const name = host === null ? null : parseHostPattern(host);
  return {
    ...{ id: 'link', client: 'app', createdAtMs: 0, host: name, port: 3306 },
    ...{ service: parseServiceName(serviceName), targetPort: 80, place },
  };
}
function records(more: Partial<ProxyRecords>): ProxyRecords {
  generation += 1;
  return { generation, services: [service('db')], routes: [], links: [], upstreams: [], peers, ...more };
}
const pause = (id: string) => ({ id, untilMs: Date.now() + 60_000, drain: null });
const held = (id: string) => [service('db', { pause: pause(id) })];

describe('the kernel layer', () => {
  let net: Net;
  let layer: Asking;
  const layers = new Set<Asking>();

  before(async () => {
    net = await createNet();
    for (const [index, name] of (['one', 'two', 'far'] as const).entries())
      await net.hosts[name].ask('serve', { port: 80, name: ['one', 'two', 'far'][index] });
    for (const port of [5432, 24_306]) await net.hosts.a.ask('serve', { port, name: 'gate' });
  });
  after(() => net.dispose());

  beforeEach(async () => {
    layer = await startLayer('a');
  });
  afterEach(async () => {
    for (const one of layers) {
      await one.ask('apply', { records: records({ services: [] }) });
      await one.end();
    }
    layers.clear();
    await noDocker();
    for (const host of Object.values(net.hosts)) await host.ask('hang-up');
    await net.run('a', 'conntrack', '-D', '-p', 'tcp').catch(() => {});
  });

  const docker = async () => {
    await iptables('-P FORWARD DROP', '-N DOCKER-USER', '-A FORWARD -j DOCKER-USER', '-A DOCKER-USER -j RETURN');
    await iptables('-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT');
    // It has tables for translation, which keep the kernel translating what runs when ours goes.
    await iptables('-t nat -A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE');
  };
  const noDocker = () => iptables('-P FORWARD ACCEPT', '-F', '-X', '-t nat -F');
  const iptables = async (...rules: readonly string[]) => {
    for (const rule of rules) await net.run('a', 'iptables-nft', ...rule.split(' '));
  };

  async function startLayer(node: 'a' | 'b'): Promise<Asking> {
    const made = await net.layer(node);
    layers.add(made);
    const names = node === 'a' ? (['one', 'two', 'app'] as const) : (['far'] as const);
    const containers = Object.fromEntries(
      names.map((name) => [name, { pid: net.hosts[name].pid, hostsPath: hosts(name) }]),
    );
    for (const name of names) await writeFile(hosts(name), dockersHosts, { flag: 'a' });
    await made.ask('containers', { containers });
    return made;
  }
  const dockersHosts = '127.0.0.1\tlocalhost\n';
  const hosts = (name: string) => join(net.folder, `hosts-${name}`);
  type Dialled = { readonly index: number; readonly line: string };
  const dial = (from: keyof Net['hosts'], host: string, port: number, waitMs = 10_000) =>
    net.hosts[from].ask<Dialled>('dial', { host, port, waitMs });
  const say = (from: keyof Net['hosts'], index: number, text: string, waitMs = 10_000) =>
    net.hosts[from].ask<string>('say', { index, text, waitMs });
  const ending = async (from: keyof Net['hosts'], index: number) =>
    (await net.hosts[from].ask<(string | null)[]>('endings'))[index];
  const apply = (more: Partial<ProxyRecords>, to = layer) => to.ask<number>('apply', { records: records(more) });
  const inFlight = async (name = 'db') => (await layer.ask<{ tunnels: number }>('inFlight', { service: name })).tunnels;

  it('leads a port to containers of this node in turn, which see the client’s address', async () => {
    await apply({ routes: [route('tcp://:5432 -> 80')], upstreams: [upstream('one'), upstream('two')] });
    const lines: string[] = [];
    for (let index = 0; index < 4; index += 1) lines.push((await dial('client', addresses.a, 5432)).line);
    assert.deepEqual(lines.toSorted(), [
      `one ${addresses.client}`,
      `one ${addresses.client}`,
      `two ${addresses.client}`,
      `two ${addresses.client}`,
    ]);
    assert.equal(await inFlight(), 4);
  });

  for (const isFiltered of [true, false])
    it(`leads a container’s connection to one on the same bridge, the host’s own, and a container’s to itself to the gate, ${isFiltered ? 'with' : 'without'} br_netfilter`, async function () {
      const set = await net.run('a', 'sh', '-c', `echo ${Number(isFiltered)} > ${bridgeFilter}`).catch(() => null);
      if (isFiltered && set === null) this.skip();
      await apply({ routes: [route('tcp://:5432 -> 80')], upstreams: [upstream('one')] });
      assert.equal((await dial('two', '172.31.0.1', 5432)).line, `one ${isFiltered ? addresses.two : '172.31.0.1'}`);
      assert.equal((await dial('two', addresses.a, 5432)).line, `one ${isFiltered ? addresses.two : '172.31.0.1'}`);
      assert.match((await dial('one', addresses.a, 5432)).line, /^gate /);
      assert.equal((await dial('a', addresses.a, 5432)).line, `one ${addresses.a}`);
      // The gate's: what the host says to its own localhost.
      assert.match((await dial('a', '127.0.0.1', 5432)).line, /^gate /);
    });

  it('tells one address of the node from another, and leaves other hosts’ ports alone', async () => {
    await net.hosts.b.ask('serve', { port: 5432, name: 'b' });
    await net.run('b', 'ip', 'route', 'add', '172.31.0.0/24', 'via', addresses.a);
    await apply({ routes: [route(`tcp://${addresses.a}:5432 -> 80`)], upstreams: [upstream('one')] });
    assert.match((await dial('client', addresses.a, 5432)).line, /^one /);
    assert.match((await dial('two', '172.31.0.1', 5432)).line, /^gate /);
    assert.match((await dial('two', addresses.b, 5432)).line, /^b /);
    await net.run('b', 'ip', 'route', 'del', '172.31.0.0/24');
    await net.hosts.b.ask('stop', { port: 5432 });
  });

  it('leads to another node’s container through an inner port, which takes nobody but nodes', async () => {
    const other = await startLayer('b');
    const more = { routes: [route('tcp://:5432 -> 80')], upstreams: [upstream('far')] };
    await apply(more);
    await apply(more, other);
    assert.equal((await dial('client', addresses.a, 5432)).line, `far ${addresses.a}`);
    assert.equal((await dial('client', addresses.b, 5432)).line, `far ${addresses.client}`);
    assert.equal((await dial('client', addresses.b, 24_080)).line, 'ECONNREFUSED');
    assert.equal((await dial('a', addresses.b, 24_080)).line, `far ${addresses.a}`);
  });

  it('fails none of 32 clients that come again and again while routes change, a pause comes and goes', async () => {
    const routes = [route('tcp://:5432 -> 80')];
    const sets = [[upstream('one')], [upstream('two')], [upstream('one'), upstream('two')]];
    await apply({ routes, upstreams: sets[0] ?? [] });
    const storm = net.hosts.client.ask<{ failed: number; failures: string[]; by: Record<string, number> }>('storm', {
      ...{ host: addresses.a, port: 5432, clients: 32, ms: 3_000 },
    });
    let changes = 0;
    for (const end = performance.now() + 2_800; performance.now() < end; changes += 1) {
      const upstreams = sets[changes % sets.length] ?? [];
      await apply({ routes, upstreams, ...(changes % 5 === 4 ? { services: held(`p${changes}`) } : {}) });
      await sleep(20);
    }
    const { failed, failures, by } = await storm;
    assert.equal(failed, 0, failures.join('\n'));
    for (const name of ['one', 'two', 'gate']) assert.ok((by[name] ?? 0) >= 20, JSON.stringify(by));
    assert.ok(changes >= 10, `only ${changes} changes`);
  });

  it('keeps connections through a pause, a change and a restart of the layer, and sends what is new elsewhere', async () => {
    const routes = [route('tcp://:5432 -> 80')];
    await apply({ routes, upstreams: [upstream('one')] });
    const { index, line } = await dial('client', addresses.a, 5432);
    assert.match(line, /^one /);
    await apply({ routes, upstreams: [upstream('one')], services: held('p') });
    assert.equal(await say('client', index, 'still here'), 'still here');
    assert.match((await dial('client', addresses.a, 5432)).line, /^gate /);
    assert.equal(await inFlight(), 1);
    await apply({ routes, upstreams: [upstream('two')] });
    assert.match((await dial('client', addresses.a, 5432)).line, /^two /);
    const before = await net.run('a', 'nft', '-a', 'list', 'table', 'ip', 'flock');
    await layer.kill();
    layers.delete(layer);
    assert.match((await dial('client', addresses.a, 5432)).line, /^two /);
    layer = await startLayer('a');
    await apply({ routes, upstreams: [upstream('two')] });
    assert.equal(await net.run('a', 'nft', '-a', 'list', 'table', 'ip', 'flock'), before);
    assert.equal(await say('client', index, 'and here'), 'and here');
    assert.equal(await inFlight(), 3);
  });

  it('sends the next try of a connection that got no answer before a pause to the gate', async () => {
    const routes = [route('tcp://:5432 -> 80')];
    await net.run('one', 'nft', 'add table ip deaf; add chain ip deaf in { type filter hook input priority 0; }');
    await net.run('one', 'nft', 'add rule ip deaf in tcp dport 80 drop');
    await apply({ routes, upstreams: [upstream('one')] });
    const dialled = dial('client', addresses.a, 5432, 5_000);
    await sleep(300);
    await apply({ routes, upstreams: [upstream('one')], services: held('p') });
    assert.match((await dialled).line, /^gate /);
    await net.run('one', 'nft', 'delete table ip deaf');
  });

  it('makes its table anew when somebody has flushed all of them', async () => {
    await apply({ routes: [route('tcp://:5432 -> 80')], upstreams: [upstream('one')] });
    const { index } = await dial('client', addresses.a, 5432);
    await net.run('a', 'nft', 'flush', 'ruleset');
    await until('the table is back', 5_000, async () =>
      (await dial('client', addresses.a, 5432)).line.startsWith('one') ? true : undefined,
    );
    assert.equal(await say('client', index, 'still here'), 'still here');
  });

  it('leads localhost and a name inside of a container to a service, also after its restart', async () => {
    const more = { links: [link('db', 'mysql')], upstreams: [upstream('one')] };
    await apply(more);
    assert.deepEqual(await layer.ask('problems'), []);
    assert.match((await dial('app', '127.0.0.1', 3306)).line, /^one 172\.31\.0\.[19]$/);
    assert.match(
      await readFile(hosts('app'), 'utf8'),
      /^127\.0\.0\.1\tlocalhost\n(.*\n)*127\.0\.0\.1\tmysql\t# flock link\n$/,
    );
    // Nobody else: for others it is a port of the gate, which refuses them.
    assert.match((await dial('two', '172.31.0.1', 24_306)).line, /^gate /);
    assert.equal((await dial('two', '127.0.0.1', 3306)).line, 'ECONNREFUSED');
    // Docker's own name server on such a network, and what its neighbours must not reach.
    await net.hosts.app.ask('serve', { port: 41_053, name: 'dns' });
    for (const rule of ['-d 127.0.0.11 -p tcp --dport 53 -j DNAT --to-destination 127.0.0.11:41053'])
      await net.run('app', 'iptables-nft', '-t', 'nat', '-A', 'OUTPUT', ...rule.split(' '));
    assert.match((await dial('app', '127.0.0.11', 53)).line, /^dns /);
    assert.match((await dial('app', '127.0.0.1', 3306)).line, /^one /);
    await net.run('two', 'sh', '-c', `echo 1 > ${localnet}`);
    await net.run('two', 'ip', 'addr', 'del', '127.0.0.1/8', 'dev', 'lo');
    await net.run('two', 'ip', 'route', 'add', '127.0.0.0/8', 'via', addresses.app, 'src', addresses.two);
    assert.equal((await dial('two', '127.0.0.1', 41_053, 500)).line, 'silence');
    await (await net.restart('two')).ask('serve', { port: 80, name: 'two' });
    await writeFile(hosts('app'), dockersHosts);
    const { pid } = await net.restart('app');
    await layer.ask('containers', { containers: { app: { pid, hostsPath: hosts('app') } } });
    await until('the link is back', 5_000, async () =>
      (await dial('app', '127.0.0.1', 3306)).line.startsWith('one') ? true : undefined,
    );
    assert.match(await readFile(hosts('app'), 'utf8'), /mysql/);
    // A new process, which finds a link that is not wanted any more.
    await layer.kill();
    layers.delete(layer);
    layer = await startLayer('a');
    await apply({ upstreams: [upstream('one')] });
    await until('the link is gone', 5_000, async () =>
      (await readFile(hosts('app'), 'utf8')).includes('flock') ? undefined : true,
    );
    assert.equal((await dial('app', '127.0.0.1', 3306)).line, 'ECONNREFUSED');
    assert.doesNotMatch(await net.run('app', 'nft', 'list', 'tables'), /flock/);
    assert.equal(await net.run('app', 'cat', localnet), '0');
  });

  it('says which link can’t be made, and makes the others', async () => {
    await layer.ask('containers', { containers: { app: { pid: null, hostsPath: null } } });
    await apply({ links: [link('db', null)], routes: [route('tcp://:5432 -> 80')], upstreams: [upstream('one')] });
    assert.deepEqual(await layer.ask('problems'), [
      ['app 3306 ', 'inside of the container: the container does not run'],
    ]);
    assert.match((await dial('client', addresses.a, 5432)).line, /^one /);
  });

  it('has Docker’s firewall let its connections through, also when Docker has made its chains anew', async () => {
    const more = { routes: [route('tcp://:5432 -> 80')], upstreams: [upstream('one')] };
    await docker();
    await apply(more);
    assert.match((await dial('client', addresses.a, 5432)).line, /^one /);
    await net.run('client', 'ip', 'route', 'add', '172.31.0.0/24', 'via', addresses.a);
    assert.equal((await dial('client', addresses.one, 80, 500)).line, 'silence');
    await noDocker();
    await docker();
    await until('the rule is back', 5_000, async () =>
      (await dial('client', addresses.a, 5432, 500)).line.startsWith('one') ? true : undefined,
    );
    const rules = await net.run('a', 'iptables-nft', '-S', 'DOCKER-USER');
    assert.equal(rules.match(/flock/g)?.length, 1);
    // The other kind's tables must not come into being by the question for them.
    assert.equal(await net.run('a', 'cat', '/proc/net/ip_tables_names'), '');
    await net.run('client', 'ip', 'route', 'del', '172.31.0.0/24');
  });

  it('is gone without a trace when it is removed, but for the connections', async () => {
    await docker();
    const more = { routes: [route('tcp://:5432 -> 80')], links: [link('db', 'mysql')], upstreams: [upstream('one')] };
    await apply(more);
    const { index, line } = await dial('client', addresses.a, 5432);
    assert.match(line, /^one /);
    await layer.kill();
    layers.delete(layer);
    layer = await startLayer('a');
    await layer.ask('remove');
    assert.equal(await say('client', index, 'still here'), 'still here');
    assert.match((await dial('client', addresses.a, 5432)).line, /^gate /);
    for (const name of ['a', 'app'] as const)
      assert.doesNotMatch(await net.run(name, 'nft', 'list', 'ruleset'), /flock/);
    assert.equal((await readFile(hosts('app'), 'utf8')).includes('flock'), false);
  });

  it('counts a service’s connections and ends them at both ends, and no others', async () => {
    const other = await startLayer('b');
    const services = [service('db'), service('rest')];
    const routes = [route('tcp://:5432 -> 80'), route('tcp://:5433 -> 80', 'rest')];
    const more = {
      ...{ routes, links: [link('db', null)] },
      upstreams: [upstream('one'), upstream('far'), { ...upstream('two', 'rest') }],
    };
    const paused = [service('db', { pause: pause('cut') }), service('rest')];
    await apply({ ...more, services });
    await apply({ ...more, services }, other);
    const dialled: (Dialled & { readonly from: 'client' | 'app' | 'a' })[] = [];
    for (let turn = 0; turn < 4; turn += 1) {
      dialled.push({ from: 'client', ...(await dial('client', addresses.a, 5432)) });
      dialled.push({ from: 'app', ...(await dial('app', '127.0.0.1', 3306)) });
      dialled.push({ from: 'a', ...(await dial('a', addresses.a, 5432)) });
    }
    for (const name of ['one', 'far'])
      for (const from of ['client', 'app', 'a'])
        assert.ok(
          dialled.some((one) => one.from === from && one.line.startsWith(name)),
          `${from} to ${name}: ${JSON.stringify(dialled)}`,
        );
    const kept = await dial('client', addresses.a, 5433);
    assert.match(kept.line, /^two /);
    assert.deepEqual([await inFlight(), await inFlight('rest')], [12, 1]);
    const serving = async () => {
      const [one, far] = [await net.hosts.one.ask<unknown[]>('endings'), await net.hosts.far.ask<unknown[]>('endings')];
      return [...one, ...far].filter((ended) => ended === null).length;
    };
    const open = await serving();
    await apply({ ...more, services: paused });
    assert.equal(await layer.ask('cut', { service: 'db' }), 12);
    const how = () => Promise.all(dialled.map(({ from, index }) => ending(from, index)));
    await until('all ends know', 5_000, async () => ((await how()).includes(null) ? undefined : true)).catch(
      async (error) => assert.fail(`${error}: ${JSON.stringify([dialled, await how()])}`),
    );
    await until('the service’s ends know', 3_000, async () => ((await serving()) <= open - 12 ? true : undefined));
    assert.deepEqual([await inFlight(), await inFlight('rest')], [0, 1]);
    assert.equal(await say('client', kept.index, 'still here'), 'still here');
    await apply({ ...more, services });
    const again = await dial('client', addresses.a, 5432);
    assert.match(again.line, /^(one|far) /);
    assert.equal(await say('client', again.index, 'new'), 'new');
    assert.equal(await inFlight(), 1);
  });
});
