import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseNodeName } from '../../controller/model/names.ts';
import { type Commands, createCommands } from '../../plugin/exec.ts';
import { parseRouteText } from '../../proxy/model/labels.ts';
import { parseServiceName } from '../../proxy/model/names.ts';
import type { LinkDoc, Pause, ProxyRecords, UpstreamDoc } from '../../proxy/model/records.ts';
import { buildTable, type Table } from '../../proxy/model/table.ts';
import { isRunning, readConnections } from '../../proxy/stack/kernel/connections.ts';
import { dockerChain } from '../../proxy/stack/kernel/docker-rule.ts';
import { withNames } from '../../proxy/stack/kernel/hosts-file.ts';
import { createKernelLayer } from '../../proxy/stack/kernel/kernel.ts';
import { layoutChain } from '../../proxy/stack/kernel/layout.ts';
import { linkText } from '../../proxy/stack/kernel/links.ts';
import { giveNumbers, hex, markMask, markOf, numberOf } from '../../proxy/stack/kernel/marks.ts';
import { endedOf, numbersOf, readState } from '../../proxy/stack/kernel/read-state.ts';
import { transaction } from '../../proxy/stack/kernel/transaction.ts';
import { noState, wantedState } from '../../proxy/stack/kernel/wanted.ts';
import { until } from '../support/until.ts';

const here = parseNodeName('here');
const established =
  'tcp      6 431999 ESTABLISHED src=10.0.0.9 dst=10.0.0.1 sport=40000 dport=5432 src=172.31.0.2 dst=10.0.0.1 sport=80 dport=40001 [ASSURED] mark=768 use=1\n';
const db = parseServiceName('db');

function upstream(container: string, address: string, node = here): UpstreamDoc {
  const inner = { address: '192.0.2.9', ports: { '80': 24_080 } };
  return { container, service: db, node, startedAtMs: 0, healthy: true, address, inner };
}
function tableOf(more: Partial<ProxyRecords>): Table {
  const services = [{ name: db, createdAtMs: 0, balance: 'round-robin', stateful: false, pause: null } as const];
  return buildTable({ generation: 1, services, routes: [], links: [], upstreams: [], peers: [], ...more }, here);
}
const route = (text: string) => ({ id: text, service: db, createdAtMs: 0, ...parseRouteText(text) });
const around = {
  local: new Set<string>(),
  interfaces: ['br0'],
  numbers: new Map([['db', 3]]),
  ended: new Set<number>(),
};
const elements = (table: Table, more: Partial<typeof around> = {}) =>
  [...wantedState(table, { ...around, ...more }).state.elements.values()].map(({ set, key, value }) =>
    `${set} ${key} ${value.replace(/to-[0-9a-f]+/, 'CHAIN')}`.trim(),
  );

describe('the kernel’s table', () => {
  it('marks connections in its own bits only', () => {
    for (const number of [1, 2, 3, 255, 256, 0x1234, 0xffff]) {
      assert.equal(numberOf(markOf(number)), number);
      assert.equal((markOf(number) & ~markMask) >>> 0, 0);
    }
    assert.equal(hex(markOf(0xffff)), hex(markMask));
  });

  it('gives services numbers that stay theirs, and new ones those that nobody had lately', () => {
    const first = giveNumbers(['a', 'b'], new Map(), new Set());
    assert.deepEqual(
      [...first],
      [
        ['a', 3],
        ['b', 4],
      ],
    );
    const second = giveNumbers(['b', 'c'], first, new Set());
    assert.deepEqual([second.get('b'), second.get('c'), second.get('a')], [4, 5, 3]);
    const cut = giveNumbers(['b'], second, new Set([4]));
    assert.equal(cut.get('b'), 6);
    assert.equal(giveNumbers(['z'], new Map([['y', 0xffff]]), new Set([3])).get('z'), 4);
    const many = Array.from({ length: 70_000 }, (_, index) => `s${index}`);
    const all = giveNumbers(many, new Map(), new Set());
    assert.equal(all.size, 0xffff - 2);
    assert.equal(new Set(all.values()).size, all.size);
    assert.equal(giveNumbers([], all, new Set()).size, 1_000);
  });

  it('has what the records say: routes, links, inner ports, and to where answers must come back this way', () => {
    const place = { node: here, client: '172.17.0.9', gateway: '172.17.0.1', port: 24_001 };
    const link: LinkDoc = {
      id: 'l',
      client: 'app',
      createdAtMs: 0,
      host: null,
      port: 1,
      service: db,
      targetPort: 80,
      place,
    };
    const table = tableOf({
      routes: [
        route('tcp://:5432 -> 80'),
        route('tcp://192.0.2.1:5433 -> 80'),
        route('tcp://[2001:db8::1]:5434 -> 80'),
      ],
      links: [link],
      upstreams: [upstream('one', '172.17.0.2'), upstream('far', '172.17.0.2', parseNodeName('there'))],
      peers: ['192.0.2.1', '192.0.2.9', '2001:db8::9'],
    });
    assert.deepEqual(elements(table).toSorted(), [
      'addresses 192.0.2.1 . 5433 goto CHAIN',
      'ended 512',
      'inner 24080 goto CHAIN',
      'links 172.17.0.9 . 172.17.0.1 . 24001 goto CHAIN',
      'peers 192.0.2.1',
      'peers 192.0.2.9',
      'ports 5432 goto CHAIN',
      'remote 192.0.2.9 . 24080',
      'services 768 comment "db"',
      'turning br0 . br0',
    ]);
  });

  it('leaves to the gate what the kernel can’t reach, and says of which inner port that is', () => {
    const hosts = { routes: [route('tcp://:5432 -> 80')], upstreams: [upstream('one', '127.0.0.1')] };
    const { state, problems } = wantedState(tableOf(hosts), around);
    assert.equal(
      [...state.elements.keys()].some((id) => id.startsWith('ports')),
      false,
    );
    assert.deepEqual([...problems.keys()], ['inner 24080']);
  });

  it('is changed by what differs only, and not at all when nothing does', () => {
    const before = wantedState(
      tableOf({ routes: [route('tcp://:1 -> 80')], upstreams: [upstream('a', '10.0.0.1')] }),
      around,
    );
    const more = {
      routes: [route('tcp://:1 -> 80')],
      upstreams: [upstream('a', '10.0.0.1'), upstream('b', '10.0.0.2')],
    };
    const after = wantedState(tableOf(more), around);
    assert.equal(transaction(before.state, before.state), '');
    const text = transaction(before.state, after.state);
    assert.match(text, /^delete element ip flock ports \{ 1 \}$/m);
    assert.match(text, /^add element ip flock ports \{ 1 : goto to-[0-9a-f]{16} \}$/m);
    assert.match(text, /dnat ip to numgen inc mod 2 map \{ 0 : 10\.0\.0\.1 \. 80, 1 : 10\.0\.0\.2 \. 80 \}$/m);
    assert.doesNotMatch(text, /services|turning|table ip flock \{/);
    // Chains are there before what leads to them, and go after it.
    const order = ['add chain', 'delete element', 'add element', 'flush chain', 'delete chain'];
    const places = order.map((start) => text.split('\n').findIndex((line) => line.startsWith(start)));
    assert.deepEqual(
      places,
      places.toSorted((a, b) => a - b),
    );
    assert.match(transaction({ ...before.state, layout: 'older' }, after.state), /^delete table ip flock$/m);
    assert.match(transaction(noState, after.state), new RegExp(`chain ${layoutChain} `));
  });

  it('is read back as it was written', () => {
    const table = (name: string, elem: readonly unknown[]) => ({ name, elem });
    const said = {
      nftables: [
        { metainfo: { version: '1.0.6' } },
        { map: table('ports', [[5432, { goto: { target: 'to-1' } }]]) },
        { map: table('addresses', [[{ concat: ['192.0.2.1', 5433] }, { goto: { target: 'to-1' } }]]) },
        { map: { name: 'links' } },
        { set: table('peers', ['192.0.2.9']) },
        { set: table('turning', [{ concat: ['br0', 'br0'] }]) },
        { set: table('services', [{ elem: { val: 768, comment: 'db' } }]) },
        { set: table('ended', [512, 1024]) },
        { set: table('of-others', [1]) },
        { chain: { name: layoutChain } },
        { chain: { name: 'to-1' } },
        { rule: { chain: 'to-1', expr: [] } },
      ],
    };
    const state = readState(JSON.stringify(said));
    assert.equal(state.layout, layoutChain);
    assert.deepEqual([...state.chains.keys()], ['to-1']);
    assert.deepEqual(
      [...state.elements.keys()],
      [
        ...['ports 5432', 'addresses 192.0.2.1 . 5433', 'peers 192.0.2.9', 'turning br0 . br0', 'services 768'],
        ...['ended 512', 'ended 1024'],
      ],
    );
    assert.equal(state.elements.get('ports 5432')?.value, 'goto to-1');
    assert.deepEqual([...numbersOf(state)], [['db', 3]]);
    assert.deepEqual([...endedOf(state)], [4]);
    assert.throws(() => readState('{"nftables": [{"map": {"name": 3}}]}'));
  });
});

describe('what surrounds the kernel’s table', () => {
  it('can be without nft: then it is said what nobody else can do, and the rest is the gate’s', async () => {
    const place = { node: here, client: '172.17.0.9', gateway: '172.17.0.1', port: 24_001 };
    const link = { id: 'l', client: 'app', createdAtMs: 0, host: null, port: 1, service: db, targetPort: 80, place };
    const layer = createKernelLayer({
      commands: createCommands({ PATH: '/nonexistent' }),
      folder: '/nonexistent',
      hostRoot: '',
      containers: () => new Map(),
    });
    await layer.apply(
      tableOf({ routes: [route('tcp://:1 -> 80')], links: [link], upstreams: [upstream('a', '10.0.0.1')] }),
    );
    assert.deepEqual([...layer.problems().keys()].toSorted(), ['app 1 ', 'inner 24080']);
    await layer.close();
  });

  it('has connections without an answer, which are forgotten in a pause and where nobody serves any more', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'flock-kernel-'));
    const forgotten: string[] = [];
    let isConntrackAway = false;
    let isNothingForgotten = false;
    const commands: Pick<Commands, 'run'> = {
      async run(file, args) {
        if (file === 'nft' && args[0] === '-j') return '{"nftables": []}';
        if (file === 'conntrack' && (isConntrackAway || (isNothingForgotten && args[0] === '-D')))
          throw new Error('conntrack takes too long');
        if (file === 'conntrack' && args[0] === '-D') forgotten.push(args.slice(args.indexOf('--mark') + 1).join(' '));
        return file === 'conntrack' && args[0] === '-L' ? established : '';
      },
    };
    const containers = () => new Map();
    const layer = createKernelLayer({ commands: commands as Commands, folder, hostRoot: '', containers });
    const web = parseServiceName('web');
    const table = (pause: Pause | null, ...upstreams: readonly UpstreamDoc[]) =>
      tableOf({
        services: [
          { name: db, createdAtMs: 0, balance: 'round-robin', stateful: false, pause },
          { name: web, createdAtMs: 0, balance: 'round-robin', stateful: false, pause: null },
        ],
        routes: [route('tcp://:1 -> 80')],
        upstreams,
      });
    const [a, b] = [upstream('a', '10.0.0.1'), upstream('b', '10.0.0.2')];
    try {
      await layer.apply(table(null, a, b));
      await layer.apply(table(null, b));
      await until('it is forgotten', 5_000, () => forgotten.length > 0 || undefined);
      const mark = `${hex(markOf(3))}/${hex(markMask)}`;
      assert.deepEqual(forgotten.splice(0), [`${mark} --reply-src 10.0.0.1 --reply-port-src 80`]);
      // What fails in the table's own turn is not taken for done by that of another service's cut.
      const paused = table({ id: 'p', untilMs: 1, drain: null }, b);
      isConntrackAway = true;
      await assert.rejects(layer.apply(paused), /takes too long/);
      // Nor does it keep that one from being done.
      [isConntrackAway, isNothingForgotten] = [false, true];
      assert.equal(await layer.cutTunnels(web), 1);
      isNothingForgotten = false;
      assert.deepEqual(forgotten, []);
      await layer.apply(paused);
      assert.deepEqual(forgotten, [mark]);
    } finally {
      await layer.close();
      await rm(folder, { recursive: true });
    }
  });

  it('is seen in what iptables-save says of Docker’s chain', () => {
    const filter = (rules: string) => `*nat\n:DOCKER - [0:0]\nCOMMIT\n*filter\n:FORWARD DROP [0:0]\n${rules}COMMIT\n`;
    assert.equal(dockerChain(filter('')), 'missing');
    assert.equal(dockerChain(''), 'missing');
    assert.equal(dockerChain('*nat\n:DOCKER-USER - [0:0]\n'), 'missing');
    const chain = ':DOCKER-USER - [0:0]\n-A DOCKER-USER -j RETURN\n';
    assert.equal(dockerChain(filter(chain)), 'without our rule');
    const rule = '-A DOCKER-USER -m connmark ! --mark 0x0/0xff00ff00 -m comment --comment flock -j ACCEPT\n';
    assert.equal(dockerChain(filter(`${chain}${rule}`)), 'with our rule');
  });

  it('is read from the kernel’s list of connections', () => {
    const text = [
      'tcp      6 431999 ESTABLISHED src=10.0.0.9 dst=10.0.0.1 sport=40000 dport=5432 src=172.31.0.2 dst=10.0.0.1 sport=80 dport=40001 [ASSURED] mark=768 use=1',
      'tcp      6 119 SYN_SENT src=10.0.0.9 dst=10.0.0.1 sport=40002 dport=5432 [UNREPLIED] src=172.31.0.2 dst=10.0.0.9 sport=80 dport=40002 mark=768 use=1',
      'tcp      6 100 TIME_WAIT src=10.0.0.9 dst=10.0.0.1 sport=3 dport=4 packets=5 bytes=6 src=1.1.1.1 dst=2.2.2.2 sport=5 dport=6 [ASSURED] mark=768 use=1',
    ].join('\n');
    const [first, second, third, ...others] = readConnections(text);
    assert.deepEqual(first, {
      state: 'ESTABLISHED',
      client: { host: '10.0.0.9', port: 40_000 },
      entrance: { host: '10.0.0.1', port: 5432 },
      service: { host: '172.31.0.2', port: 80 },
      seenClient: { host: '10.0.0.1', port: 40_001 },
    });
    assert.equal(second?.service.host, '172.31.0.2');
    assert.equal(third?.seenClient.port, 6);
    assert.equal(others.length, 0);
    assert.deepEqual(
      [first, second, third].map((one) => one !== undefined && isRunning(one)),
      [true, false, false],
    );
    assert.deepEqual(readConnections(''), []);
  });

  it('has names in a container’s /etc/hosts, and leaves the other lines as they are', () => {
    const docker = '127.0.0.1\tlocalhost\n172.17.0.2\tapp\n';
    const named = withNames(docker, ['db', 'mysql']);
    assert.equal(named, `${docker}127.0.0.1\tdb\t# flock link\n127.0.0.1\tmysql\t# flock link\n`);
    assert.equal(withNames(named, ['db', 'mysql']), named);
    assert.equal(withNames(named, ['mysql']), `${docker}127.0.0.1\tmysql\t# flock link\n`);
    assert.equal(withNames(named, null), docker);
    assert.equal(withNames(withNames(docker, []), null), docker);
    assert.notEqual(withNames(docker, []), docker);
    assert.equal(withNames('no end of line', ['db']), 'no end of line\n127.0.0.1\tdb\t# flock link\n');
    assert.equal(withNames('', null), '');
  });

  it('leads the ports of all links of a container to the bridge’s address', () => {
    const link = (port: number, outer: number) => ({
      ...{ client: 'app', host: null, port, service: db, targetPort: 1 },
      place: { node: here, client: '172.17.0.9', gateway: '172.17.0.1', port: outer },
    });
    assert.match(
      linkText([link(3306, 24_001), link(5432, 24_002)]),
      /elements = \{ 3306 : 172\.17\.0\.1 \. 24001, 5432 : 172\.17\.0\.1 \. 24002 \};/,
    );
  });
});
