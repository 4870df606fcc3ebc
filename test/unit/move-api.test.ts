import assert from 'node:assert/strict';
import { keys } from '../../controller/model/cluster.ts';
import { eventKeys } from '../../controller/model/events.ts';
import { decodeMove, type MoveDoc } from '../../controller/model/move.ts';
import { parseNodeName } from '../../controller/model/names.ts';
import { workloadKeys } from '../../controller/model/workload.ts';
import { askSocket } from '../../controller/socket-request.ts';
import { volumeDoc, workload } from '../support/move-documents.ts';
import { createMoveHosts, type MoveHosts } from '../support/move-hosts.ts';
import { gibi } from '../support/placement-nodes.ts';
import { until } from '../support/until.ts';

let hosts: MoveHosts;
const web = workload('web', 'n1', { volumes: ['data'] });
const tied = workload('tied', 'n1', { obstacles: ['--device /dev/x: the device is this host’s'] });

const moves = async (): Promise<readonly MoveDoc[]> =>
  (await hosts.store.list('moves/', { fresh: true })).map(({ value }) => decodeMove(value));

const ask = async (path: string) => {
  const signal = AbortSignal.timeout(20_000);
  const socketPath = hosts.socketOf('n3');
  const { text } = await askSocket({ socketPath, method: 'GET', path, body: undefined, signal });
  return JSON.parse(text);
};

describe('flockctl and moves', function () {
  // Each flockctl is a process of its own.
  this.timeout(60_000);

  beforeEach(async () => {
    hosts = await createMoveHosts({
      nodes: ['n1', 'n2', 'n3'],
      workloads: [web, tied],
      volumes: [volumeDoc('data', 'n1', { replicas: ['n2'] })],
    });
  });
  afterEach(() => hosts.dispose());

  it('moves, from any node, and tells each step and the end', async () => {
    assert.match(await hosts.flockctl('n3', 'workload', 'ls'), /web +web +n1 +running +auto +data +-/);
    const said = await hosts.flockctl('n3', 'move', 'web', 'n2');
    const steps = ['preparing', 'copying', 'pausing', 'draining', 'stopping', 'committing', 'starting', 'releasing'];
    for (const step of steps) assert.match(said, new RegExp(`^${step} +n[12] +\\d+(\\.\\d)? m?s`, 'm'));
    assert.match(said, /^moved web from n1 to n2: away for [\d.]+ m?s, 10 B sent$/m);
    assert.deepEqual(hosts.runs('web'), ['n2']);

    const [doc] = await moves();
    assert.match(await hosts.flockctl('n1', 'moves', 'ls'), new RegExp(`^${doc?.id} +web +n1 +n2 +done`, 'm'));
    const shown = await hosts.flockctl('n2', 'moves', 'show', doc?.id ?? '');
    assert.match(shown, /^Containers +web$/m);
    assert.match(shown, /^committing +n1 +[\d.]+ m?s +1 volume$/m);
    await until('the log has both ends', 5_000, async () => {
      const events = await hosts.flockctl('n3', 'events');
      return /move-started +web from n1 to n2 .*\n.*move-done +web from n1 to n2: /.test(events) ? true : undefined;
    });
  });

  it('says what a move would do, and what is in its way', async () => {
    const plan = await hosts.flockctl('n1', 'move', 'web', 'n2', '--dry-run');
    assert.match(plan, /web would go from n1 to n2/);
    assert.match(plan, /VOLUME +COPY ON N2 +TO SEND\ndata +yes +10 B/);
    assert.match(plan, /web +web:1 \(to be brought to n2\)/);
    hosts.images.add('n2');
    const elsewhere = await hosts.flockctl('n3', 'move', 'web', 'n2', '--dry-run');
    assert.match(elsewhere, /web +web:1\n/);
    assert.match(elsewhere, /data +yes +10 B/);
    assert.match(
      await hosts.refused('n1', 'move', 'tied', 'n2'),
      /tied can't be moved to n2: container tied: --device/,
    );
    assert.match(await hosts.refused('n1', 'move', 'tied', 'n2', '--dry-run'), /can't be moved/);
    assert.match(await hosts.refused('n1', 'move', 'wbe', 'n2'), /did you mean web\?/);
    assert.match(await hosts.refused('n1', 'move', 'web', 'n1'), /it is on n1 already/);
    assert.match(await hosts.refused('n1', 'move', 'web', 'n2', '--timeout', '1s'), /use from 5s to 2m/);
    assert.deepEqual(await moves(), []);
  });

  it('says what only the hosts see that is in its way, whichever node is asked', async () => {
    const running = { running: true, exitCode: 0 };
    const side = { id: 'side', name: 'side', workload: workload('side', 'n1'), ...running };
    hosts.containers('n1').set('side', { ...side, networkMode: `container:${web.containerId}` });
    hosts
      .containers('n2')
      .set('other', { id: 'other', name: 'web', workload: workload('x', 'n2'), isForeign: true, ...running });
    const asked = ['move', 'web', 'n2', '--dry-run'] as const;
    for (const node of ['n1', 'n2', 'n3']) {
      const { obstacles } = JSON.parse(await hosts.printed(node, '-o', 'json', ...asked));
      assert.match(obstacles.join('\n'), /side is in the network of web .*\n.*another container web on n2/);
    }
    hosts.silence('n2');
    assert.match(await hosts.printed('n3', ...asked), /! the controller of n2 could not be asked/);
    assert.deepEqual(await moves(), []);
  });

  it('sends nothing to a node that has no room for it, and a drain says so', async () => {
    const space = (name: string) => ({
      kind: 'set' as const,
      key: keys.space(parseNodeName(name)),
      value: JSON.stringify({ sizeBytes: 100 * gibi, freeBytes: 50 * gibi }),
    });
    const idle = volumeDoc('idle', 'n1');
    const volume = { kind: 'set', key: keys.volume(idle.id), value: JSON.stringify(idle) } as const;
    await hosts.store.transact([volume, ...['n2', 'n3'].map(space)]);
    hosts.estimates({ hasCopy: false, bytes: 40 * gibi });
    const words = /n2 has no room for the 40 GiB that come: 50 GiB are free in its pool, and 52 GiB are needed/;
    assert.match(await hosts.printed('n3', 'move', 'web', 'n2', '--dry-run'), words);
    assert.match(await hosts.refused('n3', 'move', 'web', 'n2'), words);
    assert.deepEqual(hosts.runs('web'), ['n1']);
    await hosts.flockctl('n1', 'node', 'drain', 'n1', '--detach');
    const view = await until('the drain says why', 10_000, async () => {
      const { problems } = JSON.parse(await hosts.flockctl('n1', '-o', 'json', 'node', 'drain', 'n1', '--detach'));
      return problems.some((text: string) => text.startsWith('volume idle: n')) ? problems.join('\n') : undefined;
    });
    assert.match(view, /volume idle: n[23] has no room for the 40 GiB that come/);
  });

  it('says who is left behind that reaches it by name in a network of the host, and moves it', async () => {
    const shop = { networksNeeded: { shop: { Name: 'shop' } } };
    const shown = workload('api', 'n1', { spec: shop });
    await hosts.store.transact([{ kind: 'set', key: workloadKeys.workload(shown.id), value: JSON.stringify(shown) }]);
    const running = { running: true, exitCode: 0 };
    const containers = hosts.containers('n1');
    containers.set(shown.containerId ?? '', { id: shown.containerId ?? '', name: 'api', workload: shown, ...running });
    const front = workload('front', 'n1', { spec: shop });
    containers.set('front', { id: 'front', name: 'front', workload: front, isForeign: true, ...running });
    const warning = /api shares network shop with front: names in it are known on one host only.*flock\.link/;
    assert.match(await hosts.flockctl('n3', 'move', 'api', 'n2', '--dry-run'), warning);
    await hosts.flockctl('n3', 'move', 'api', 'n2');
    assert.deepEqual(hosts.runs('api'), ['n2']);
  });

  it('says why a move has turned back, with exit status 1', async () => {
    hosts.broken.set('n2 start', 'port 80 is taken');
    const said = await hosts.refused('n3', 'move', 'web', 'n2');
    assert.match(
      said,
      /web from n1 to n2 has failed at starting: container web could not be started: port 80 is taken/,
    );
    assert.deepEqual(hosts.runs('web'), ['n1']);
    const [doc] = await moves();
    assert.match(await hosts.flockctl('n3', 'moves', 'show', doc?.id ?? ''), /^Turned back at +starting$/m);
    assert.match(
      await hosts.refused('n1', 'moves', 'abort', doc?.id ?? ''),
      /can't be turned back any more: it is over/,
    );
    assert.match(await hosts.refused('n1', 'moves', 'abort', '12345678'), /there is no move/);
  });

  it('takes away what it has made, and nothing else that was made of it', async () => {
    // Kept from a failover, and made by a person from its image.
    const kept = { id: 'kept', name: 'web.left-2', workload: web, running: false, exitCode: 0, hasRun: true };
    const committed = { id: 'other', name: 'web-copy', workload: web, running: true, exitCode: 0, hasRun: true };
    for (const one of [kept, committed]) hosts.containers('n2').set(one.id, one);
    hosts.broken.set('n2 image', 'the image is nowhere');
    assert.match(await hosts.refused('n3', 'move', 'web', 'n2'), /failed at preparing: .*nowhere/);
    assert.deepEqual([...hosts.containers('n2').keys()], ['kept', 'other']);
    assert.ok(committed.running);
    const made = { id: 'made', name: 'web', workload: web, running: false, exitCode: 0 };
    hosts.containers('n2').set(made.id, made);
    assert.match(await hosts.refused('n3', 'move', 'web', 'n2'), /failed at preparing: .*nowhere/);
    assert.deepEqual([...hosts.containers('n2').keys()], ['kept', 'other']);
    const started = { ...made, id: 'started', running: true };
    hosts.containers('n2').set(started.id, started);
    assert.match(await hosts.refused('n3', 'move', 'web', 'n2'), /failed at preparing: .*nowhere/);
    assert.deepEqual([...hosts.containers('n2').keys()], ['kept', 'other', 'started'], 'it has run: it is somebody’s');
  });

  it('holds nobody up for a container that was removed while its volumes were copied', async () => {
    hosts.copies({ state: 'running', sentBytes: 1, totalBytes: 10, roundMs: null });
    const moving = hosts.refused('n3', 'move', 'web', 'n2');
    await until('it copies', 10_000, async () => ((await moves())[0]?.step === 'copying' ? true : undefined));
    hosts.containers('n1').delete(web.containerId ?? '');
    hosts.copies(null);
    assert.match(
      await moving,
      /failed at pausing: container web is not there any more: it was removed during the move/,
    );
    assert.deepEqual([...hosts.pauses.keys()], []);
  });

  it('says that a name or an id is empty', async () => {
    assert.match(await hosts.refused('n1', 'moves', 'show', ''), /a name or an id is empty/);
    assert.match(await hosts.refused('n1', 'node', 'drain', '', '--detach'), /a name or an id is empty/);
    assert.match(await hosts.refused('n1', 'move', '', 'n2'), /no service or container ""/);
  });

  it('begins a move without waiting, and has it turn back', async () => {
    hosts.broken.set('n1 copy', 'the copy hangs');
    const begun = await hosts.flockctl('n1', '-o', 'json', 'move', 'web', 'n2', '--detach');
    const { id } = JSON.parse(begun) as MoveDoc;
    await hosts.flockctl('n2', 'moves', 'abort', id).catch((error: Error) => error);
    await until('it is over', 5_000, async () => ((await moves())[0]?.step === 'failed' ? true : undefined));
    assert.deepEqual(hosts.runs('web'), ['n1']);
  });

  it('shows how far the copying is, and turns back at Ctrl-C', async () => {
    hosts.copies({ state: 'running', sentBytes: 30 * 1024 ** 2, totalBytes: 120 * 1024 ** 2, roundMs: null });
    const terminal = hosts.terminal('n3', 'move', 'web', 'n2');
    await terminal.sees(/preparing +n2 [\s\S]*copying +\[######------------------\] +30 MiB of 120 MiB, .*\/s/);
    terminal.type('\x03');
    await terminal.sees(/turning back; press Ctrl-C again/);
    assert.equal(await terminal.ended(), 1);
    assert.match(terminal.shown(), /clearing [\s\S]*web from n1 to n2 has failed at copying: .*Ctrl-C at flockctl/);
    assert.deepEqual(hosts.runs('web'), ['n1']);
    assert.deepEqual([...hosts.containers('n2').keys()], []);

    const left = hosts.terminal('n3', 'move', 'web', 'n2');
    await left.sees(/30 MiB of 120 MiB/);
    hosts.silence('n3');
    left.type('\x03');
    await left.sees(/press Ctrl-C again/);
    left.type('\x03');
    assert.equal(await left.ended(), 130, 'it is left alone');
    hosts.copies(null);
    await until('it is done', 15_000, async () =>
      (await moves()).some(({ step }) => step === 'done') ? true : undefined,
    );
    assert.deepEqual(hosts.runs('web'), ['n2']);
  });

  it('answers a question for what comes next when it comes', async () => {
    const { events, cursor } = await ask('/v1/events?limit=5');
    assert.deepEqual([events, cursor], [[], '0']);
    const next = ask(`/v1/events?after=${cursor}&waitMs=15000`);
    const begun = await hosts.flockctl('n1', '-o', 'json', 'move', 'web', 'n2', '--detach');
    const { id, revision } = JSON.parse(begun) as MoveDoc;
    let seen = await ask(`/v1/moves/${id}?after=${revision}&waitMs=15000`);
    assert.ok(seen.revision > revision);
    while (seen.step !== 'done') seen = await ask(`/v1/moves/${id}?after=${seen.revision}&waitMs=15000`);
    const told = await next;
    assert.equal(told.events[0].kind, 'move-started');
    const rest = await ask(`/v1/events?after=${told.cursor}&waitMs=15000`);
    assert.deepEqual(
      rest.events.map(({ kind }: { readonly kind: string }) => kind),
      ['move-done'],
    );
    assert.deepEqual((await ask(`/v1/moves/${id}?after=${seen.revision}&waitMs=10`)).step, 'done');
  });

  it('shows what is told late, however old it is, once and in the order in which it was written', async () => {
    const tell = (atMs: number, text: string) => {
      const event = { atMs, node: 'n2', kind: 'fenced', subject: 'data', text };
      const key = eventKeys.event(atMs, parseNodeName('n2'), 'aa');
      return hosts.store.transact([{ kind: 'set', key, value: JSON.stringify(event) }]);
    };
    const textsOf = ({ events }: { readonly events: readonly { readonly text: string }[] }) =>
      events.map(({ text }) => text);
    await tell(1_800_000_000_000, 'ahead of its time');
    const first = await ask('/v1/events');
    assert.deepEqual(textsOf(first), ['ahead of its time']);
    const terminal = hosts.terminal('n3', 'events', '--follow');
    await terminal.sees(/ahead of its time/);
    const wanted = [5, 3, 4, 1, 2].map((number) => `late ${number}`);
    for (const [index, text] of wanted.entries()) {
      await tell(100_000 + Number(text.at(-1)), text);
      // Each in an answer of its own, or with the next one.
      if (index % 2 === 0) await terminal.sees(new RegExp(text));
    }
    await terminal.sees(/late 2/);
    assert.deepEqual(terminal.shown().match(/late \d/g), wanted);
    terminal.type('\x03');
    await terminal.ended();

    const seen: string[] = [];
    let { cursor } = first;
    for (let page = 0; page < 4; page += 1) {
      const answer = await ask(`/v1/events?after=${cursor}&waitMs=1&limit=2`);
      assert.ok(answer.events.length <= 2);
      seen.push(...textsOf(answer));
      cursor = answer.cursor;
    }
    assert.deepEqual(seen, wanted);
    assert.deepEqual(textsOf(await ask('/v1/events?limit=2')), ['late 5', 'ahead of its time'], 'the newest by time');
    assert.equal((await ask('/v1/events?after=0000000000001-n2-aa')).code, 'invalid-request');
  });

  it('a drain that another node has just begun is no drain that somebody has ended', async () => {
    hosts.blind('n3');
    const said = await hosts.refused('n3', 'node', 'drain', 'n1', '--timeout', '1s');
    assert.match(said, /n1 is not empty after 1s/);
    assert.doesNotMatch(said, /somebody has ended it/);
    await hosts.flockctl('n2', 'node', 'undrain', 'n1');
    const ends = await until('both ends are told', 5_000, async () => {
      const events = await hosts.flockctl('n3', 'events');
      return /drain-started[\s\S]*drain-ended/.test(events) ? events : undefined;
    });
    assert.match(ends, /n1 is in use again/);
  });

  it('drains a node: what can go goes, and what can’t is named', async () => {
    assert.match(
      await hosts.flockctl('n3', 'node', 'drain', 'n1', '--detach'),
      /^n1 is being drained\.\n(.*\n)*container web: waiting/,
    );
    await until('web has left', 10_000, () => (hosts.runs('web').includes('n2') ? true : undefined));
    await until('nothing else is left', 10_000, async () => {
      const view = JSON.parse(await hosts.flockctl('n2', '-o', 'json', 'node', 'drain', 'n1', '--detach'));
      const left = view.containers.map(({ name }: { readonly name: string }) => name);
      return left.join() === 'tied' && /tied: container tied: --device/.test(view.problems.join()) ? true : undefined;
    });
    assert.match(
      await hosts.refused('n3', 'node', 'drain', 'n1', '--timeout', '1s'),
      /n1 is not empty after 1s: .*copies to be made elsewhere/s,
    );
    assert.match(await hosts.refused('n3', 'node', 'drain', 'n1', '--timeout', 'soon'), /soon/);
    assert.match(await hosts.refused('n3', 'move', 'web', 'n1'), /n1 is being drained/);
    assert.match(await hosts.flockctl('n2', 'node', 'undrain', 'n1'), /^n1 is in use again/);
    await hosts.flockctl('n3', 'move', 'web', 'n1');
    assert.deepEqual(hosts.runs('web'), ['n1']);
  });

  it('drains a node of a group whose oldest container has done its work', async () => {
    const migration = workload('migration', 'n1', { volumes: ['data'], wanted: 'stopped', createdAtMs: 0 });
    const [id, value] = [migration.containerId ?? '', JSON.stringify(migration)];
    hosts.containers('n1').set(id, { id, name: 'migration', workload: migration, running: false, exitCode: 0 });
    await hosts.store.transact([{ kind: 'set', key: workloadKeys.workload(migration.id), value }]);
    await hosts.flockctl('n3', 'node', 'drain', 'n1', '--detach');
    await until('web has left', 10_000, () => (hosts.runs('web').includes('n2') ? true : undefined));
    const [doc] = await moves();
    assert.deepEqual([doc?.service, doc?.members.map(({ name }) => name)], ['web', ['migration', 'web']]);
  });
});
