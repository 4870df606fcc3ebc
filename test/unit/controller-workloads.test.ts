import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { workloadLabel } from '../../controller/model/container-spec.ts';
import { FlockError } from '../../controller/model/errors.ts';
import { type MoveStep, moveIdSchema, moveKeys } from '../../controller/model/move.ts';
import { placedOn } from '../../controller/model/workload.ts';
import {
  type ControllerNode,
  type ControllerWorld,
  createControllerWorld,
  speed,
} from '../support/controller-world.ts';
import { flockMount, imageId } from '../support/inspected.ts';
import { moveDoc } from '../support/move-documents.ts';
import { until } from '../support/until.ts';

const routed = { mounts: [], config: { Labels: { 'flock.service': 'web', 'flock.route': 'http://a.example -> 80' } } };

describe('controllers', () => {
  let world: ControllerWorld;
  let n1: ControllerNode;
  let n2: ControllerNode;

  beforeEach(async () => {
    world = await createControllerWorld(['n1', 'n2', 'n3', 'n4']);
    n1 = world.node('n1');
    n2 = world.node('n2');
  });
  afterEach(() => world.dispose());

  const running = (node: ControllerNode, name: string) =>
    until(`${name} runs on ${node.name}`, 10_000, () => (node.docker.states()[name] === 'running' ? true : undefined));
  /** So long that everything which is going to happen has happened: tens of seconds of the controllers' time. */
  const longEnough = () => sleep(600);
  const told = async (kind: string) => (await world.events()).filter((event) => event.kind === kind);

  describe('say what containers are', () => {
    it('of those with flock volumes, with the volumes’ ids, and no others', async () => {
      await n1.start();
      n1.docker.run('db');
      n1.docker.run('other', { mounts: [{ ...flockMount, Driver: 'local' }] });
      n1.docker.run('flock-haproxy', { config: { Labels: { 'flock-program': 'haproxy', 'flock.service': 'x' } } });
      await longEnough();
      assert.equal(await world.workload('db'), undefined, 'its volume is not in the store yet');
      await world.volume('pgdata', 'n1');
      const doc = await world.see('db', 'there', () => true);
      assert.deepEqual([doc.node, doc.wanted, doc.epoch, doc.volumes[0]?.id], ['n1', 'running', 1, 'pgdata.0a1b2c3d']);
      await longEnough();
      assert.deepEqual([await world.workload('other'), await world.workload('flock-haproxy')], [undefined, undefined]);
    });

    it('once, and again only when they change', async () => {
      await world.volume('pgdata', 'n1');
      await n1.start();
      const id = n1.docker.run('db');
      await world.see('db', 'there', () => true);
      await longEnough();
      const before = (await world.workload('db'))?.revision;
      n1.docker.personStarts('db');
      await longEnough();
      assert.equal((await world.workload('db'))?.revision, before, 'an event is no change');
      await n1.docker.rename(id, 'database');
      await world.see('database', 'renamed', (doc) => doc.containerId === id);
    });

    it('until a person removes them', async () => {
      await n1.start();
      n1.docker.run('web', routed);
      await world.see('web', 'there', () => true);
      n1.docker.personRemoves('web');
      await until('its document is gone', 10_000, async () =>
        (await world.workload('web')) === undefined ? true : undefined,
      );
    });

    it('also those of before, and those that were removed while the controller was down', async () => {
      n1.docker.run('web', routed);
      n1.docker.run('api', routed);
      await n1.start();
      await world.see('web', 'there', () => true);
      await world.see('api', 'there', () => true);
      await n1.stop();
      n1.docker.personRemoves('api');
      await n1.start();
      await until('its document is gone', 10_000, async () =>
        (await world.workload('api')) === undefined ? true : undefined,
      );
      assert.ok(await world.workload('web'));
    });
  });

  it('look at what Docker describes in another way than was known now and then, and keep its document', async () => {
    const { inspect } = n1.docker;
    let isStrange = false;
    let asked = 0;
    n1.docker.inspect = async (id) => {
      asked += 1;
      return isStrange ? { ...((await inspect(id)) as object), State: 'up' } : await inspect(id);
    };
    await n1.start();
    n1.docker.run('web', routed);
    await world.see('web', 'there', () => true);
    isStrange = true;
    n1.docker.personStarts('web');
    await longEnough();
    asked = 0;
    await longEnough();
    assert.ok(asked < 60, `it was asked for ${asked} times`);
    assert.ok(await world.workload('web'));
  });

  it('ask less and less often for an image that does not come', async () => {
    const asked: number[] = [];
    n1.docker.saveImage = async () => {
      asked.push(performance.now());
      throw new Error('the disk is broken');
    };
    await world.volume('pgdata', 'n1', ['n2']);
    await Promise.all([n1.start(), n2.start()]);
    n1.docker.run('db');
    await until('it was asked for again and again', 10_000, () => (asked.length === 3 ? true : undefined));
    const [first = 0, second = 0, third = 0] = asked;
    assert.ok(second - first >= 30_000 / speed - 50, `${second - first}`);
    assert.ok(third - second >= 60_000 / speed - 50, `${third - second}`);
  });

  it('ask as often as before for one that another node has no place for at the moment', async () => {
    let asked = 0;
    n1.docker.saveImage = async () => {
      asked += 1;
      throw new FlockError('too-many-requests', 'this node is sending 2 images already');
    };
    await world.volume('pgdata', 'n1', ['n2']);
    await Promise.all([n1.start(), n2.start()]);
    n1.docker.run('db');
    // Less and less often, the sixth would come after more than 900 s.
    await until('it was asked for six times', 800_000 / speed, () => (asked === 6 ? true : undefined));
  });

  describe('keep containers running', () => {
    it('that end although they were to run', async () => {
      await n1.start();
      n1.docker.run('web', { ...routed, hostConfig: { RestartPolicy: { Name: 'no', MaximumRetryCount: 0 } } });
      await world.see('web', 'running', (doc) => doc.wanted === 'running');
      n1.docker.crash('web');
      await running(n1, 'web');
      assert.deepEqual(n1.docker.started, ['web']);
      await until('it is told', 10_000, async () => ((await told('revived')).length === 1 ? true : undefined));
    });

    it('but not those that a person has stopped, until a person starts them', async () => {
      await n1.start();
      n1.docker.run('web', routed);
      await world.see('web', 'running', (doc) => doc.wanted === 'running');
      n1.docker.personStops('web');
      await world.see('web', 'stopped', (doc) => doc.wanted === 'stopped');
      await longEnough();
      assert.deepEqual(n1.docker.started, []);
      n1.docker.personStarts('web');
      await world.see('web', 'running', (doc) => doc.wanted === 'running');
    });

    it('again and again while Docker can’t start them, and tell it once', async () => {
      await n1.start();
      n1.docker.run('web', { ...routed, hostConfig: { RestartPolicy: { Name: 'no', MaximumRetryCount: 0 } } });
      await world.see('web', 'running', (doc) => doc.wanted === 'running');
      n1.docker.refuseStarts('mounting failed');
      n1.docker.crash('web');
      await until('it is told', 10_000, async () => ((await told('revived')).length > 0 ? true : undefined));
      await longEnough();
      n1.docker.refuseStarts(null);
      await running(n1, 'web');
      assert.equal((await told('revived')).filter(({ text }) => /mounting failed/.test(text)).length, 1);
    });

    it('that have ended while the controller or Docker was down', async () => {
      await n1.start();
      const never = { RestartPolicy: { Name: 'no', MaximumRetryCount: 0 } };
      n1.docker.run('web', { ...routed, hostConfig: never });
      n1.docker.run('api', { ...routed, hostConfig: never });
      await world.see('web', 'running', (doc) => doc.wanted === 'running');
      await world.see('api', 'running', (doc) => doc.wanted === 'running');
      await n1.stop();
      n1.docker.crash('web', 0);
      await n1.start();
      await running(n1, 'web');
      n1.docker.away(true);
      await longEnough();
      n1.docker.away(false);
      n1.docker.crash('api');
      await running(n1, 'api');
    });

    it('not while a move has them', async () => {
      await n1.start();
      n1.docker.run('web', routed);
      const doc = await world.see('web', 'running', (one) => one.wanted === 'running');
      await world.change({ ...doc, move: '0badcafe' });
      await longEnough();
      n1.docker.personStops('web');
      await longEnough();
      assert.deepEqual([n1.docker.started, (await world.workload('web'))?.wanted], [[], 'running']);
    });

    it('not what a person has stopped while a move copies its volumes', async () => {
      await n1.start();
      n1.docker.run('web', routed);
      const doc = await world.see('web', 'running', (one) => one.wanted === 'running');
      const move = moveDoc({ id: moveIdSchema.parse('0badcafe'), step: 'stopping' });
      const people = world.store.connect('people');
      const put = (step: MoveStep) =>
        people.transact([{ kind: 'set', key: moveKeys.move(move.id), value: JSON.stringify({ ...move, step }) }]);
      await put('stopping');
      await world.change({ ...doc, move: move.id });
      n1.docker.personStops('web');
      await longEnough();
      assert.equal((await world.workload('web'))?.wanted, 'running', 'by then it is the move that stops it');
      await put('copying');
      const stopped = await world.see('web', 'stopped', (one) => one.wanted === 'stopped');
      assert.deepEqual([stopped.move, n1.docker.started], [move.id, []]);
      n1.docker.personStarts('web');
      await world.see('web', 'running again', (one) => one.wanted === 'running');
      // A copy may take hours.
      n1.docker.crash('web');
      await running(n1, 'web');
      await put('pausing');
      n1.docker.crash('web');
      await longEnough();
      assert.deepEqual(n1.docker.states(), { web: 'exited' }, 'from now on the move looks after it');
      await people.close();
    });

    it('what a move has stopped in vain, though the controller knows nothing of that any more', async () => {
      const policy = { RestartPolicy: { Name: 'unless-stopped', MaximumRetryCount: 0 } };
      await n1.start();
      n1.docker.run('web', { ...routed, hostConfig: policy });
      const doc = await world.see('web', 'running', (one) => one.wanted === 'running');
      await n1.stop();
      n1.docker.personStops('web');
      await world.change({ ...doc, stoppedByFlockAtMs: Date.now(), revision: doc.revision + 1 });
      await n1.start();
      await running(n1, 'web');
      const after = await world.see('web', 'seen running', (one) => one.stoppedByFlockAtMs === undefined);
      assert.equal(after.wanted, 'running');
      n1.docker.personStops('web');
      await world.see('web', 'stopped by a person', (one) => one.wanted === 'stopped');
    });

    it('what Docker could not start again, and told nobody of', async () => {
      const policy = { RestartPolicy: { Name: 'unless-stopped', MaximumRetryCount: 0 } };
      await n1.start();
      const id = n1.docker.run('web', { ...routed, hostConfig: policy });
      await world.see('web', 'running', (doc) => doc.wanted === 'running');
      await n1.stop();
      n1.docker.crash('web');
      await n1.start();
      await sleep(100);
      n1.docker.refuseStarts('mounting failed');
      await n1.docker.start(id).catch(() => undefined);
      n1.docker.refuseStarts(null);
      await running(n1, 'web');
      assert.equal((await world.workload('web'))?.wanted, 'running');
    });

    it('however many images are on their way here', async () => {
      n1.docker.saveImage = async () => new Readable({ read() {} });
      await world.volume('pgdata', 'n1', ['n2']);
      await Promise.all([n1.start(), n2.start()]);
      for (let number = 10; number < 30; number += 1) {
        const id = `sha256:${String(number).repeat(32)}`;
        n1.docker.images.set(id, { id, names: new Set() });
        n1.docker.run(`db${number}`, { image: id, config: { Image: id } });
      }
      await world.see('db29', 'there', () => true);
      await longEnough();
      n2.docker.run('web', { ...routed, hostConfig: { RestartPolicy: { Name: 'no', MaximumRetryCount: 0 } } });
      await world.see('web', 'running', (doc) => doc.wanted === 'running');
      n2.docker.crash('web');
      await running(n2, 'web');
    });

    it('not while the store does not answer', async () => {
      await n1.start();
      n1.docker.run('web', { ...routed, hostConfig: { RestartPolicy: { Name: 'no', MaximumRetryCount: 0 } } });
      await world.see('web', 'running', (doc) => doc.wanted === 'running');
      world.store.cut('n1');
      await longEnough();
      n1.docker.crash('web');
      await longEnough();
      assert.deepEqual(n1.docker.started, []);
      world.store.heal('n1');
      await running(n1, 'web');
    });
  });

  describe('when a node is dead', () => {
    beforeEach(async () => {
      await world.volume('pgdata', 'n1', ['n2']);
      await Promise.all(world.nodes.map((node) => node.start()));
      n1.docker.run('db');
      await world.see('db', 'there', () => true);
    });

    it('have brought the image where the copies are, and make its containers there', async () => {
      await until('the image is there', 10_000, () => (n2.docker.images.has(imageId) ? true : undefined));
      assert.ok(!world.node('n3').docker.images.has(imageId));
      await Promise.all([n1.stop(), n1.die()]);
      await world.volume('pgdata', 'n2', ['n1']);
      await running(n2, 'db');
      const doc = await world.see('db', 'on n2', ({ containerId }) => containerId === n2.docker.idOf('db'));
      assert.deepEqual([doc.node, doc.epoch, doc.former[0]?.node, doc.former[0]?.why], ['n2', 2, 'n1', 'left']);
      assert.ok(n2.docker.images.get(imageId)?.names.has('postgres:15'));
      await until('it is told', 10_000, async () => ((await told('recreated')).length === 1 ? true : undefined));
    });

    it('and put its old ones away when it is back', async () => {
      await until('the image is there', 10_000, () => (n2.docker.images.has(imageId) ? true : undefined));
      await Promise.all([n1.stop(), n1.die()]);
      await world.volume('pgdata', 'n2', ['n1']);
      await running(n2, 'db');
      await Promise.all([n1.live(), n1.start()]);
      const doc = await world.see('db', 'put away', ({ former }) => former.length === 0);
      assert.deepEqual(n1.docker.states(), { 'db.left-2': 'exited' });
      assert.deepEqual([doc.node, doc.wanted], ['n2', 'running']);
      await longEnough();
      assert.deepEqual(n1.docker.states(), { 'db.left-2': 'exited' }, 'and it is no workload of its own');
      assert.equal(await world.workload('db.left-2'), undefined);
      assert.equal((await told('put-away')).length, 1);
    });

    it('put away first what a move to it has left on the node that makes them again', async () => {
      await until('the image is there', 10_000, () => (n2.docker.images.has(imageId) ? true : undefined));
      const doc = await world.see('db', 'there', () => true);
      // It was moved from n2 to n1, and n2 has not yet been able to remove the old container.
      n2.docker.refuseRemovals('the disk is full');
      const left = n2.docker.run('db');
      n2.docker.personStops('db');
      const former = [{ node: n2.name, containerId: left, why: 'moved' as const }];
      await world.change({ ...doc, former, revision: doc.revision + 1 });
      await Promise.all([n1.stop(), n1.die()]);
      await world.volume('pgdata', 'n2', ['n1']);
      await longEnough();
      const waiting = await world.workload('db');
      assert.deepEqual([waiting?.node, waiting?.former], ['n1', former], 'it is not forgotten');
      n2.docker.refuseRemovals(null);
      await running(n2, 'db');
      assert.notEqual(n2.docker.idOf('db'), left);
      assert.deepEqual(Object.keys(n2.docker.states()), ['db']);
    });

    it('wait for a name that is taken, and say which', async () => {
      await until('the image is there', 10_000, () => (n2.docker.images.has(imageId) ? true : undefined));
      n2.docker.run('db', { mounts: [], config: { Labels: {} } });
      await Promise.all([n1.stop(), n1.die()]);
      await world.volume('pgdata', 'n2', ['n1']);
      await until('it is told', 10_000, async () =>
        (await told('recreated')).some(({ text }) => /another container of this host has the name/.test(text))
          ? true
          : undefined,
      );
      n2.docker.personRemoves('db');
      await running(n2, 'db');
    });

    it('say why they can’t make it', async () => {
      n1.docker.personRemoves('db');
      n1.docker.run('db', { hostConfig: { Devices: [{ PathOnHost: '/dev/kvm' }] } });
      await world.see('db', 'there', ({ obstacles }) => obstacles.length === 1);
      await Promise.all([n1.stop(), n1.die()]);
      await world.volume('pgdata', 'n2', ['n1']);
      await until('it is told', 10_000, async () =>
        (await told('failover-refused')).some(({ text }) => /--device \/dev\/kvm/.test(text)) ? true : undefined,
      );
      assert.deepEqual(n2.docker.states(), {});
    });

    it('make them at another copy where no controller is at work at the first, and the volume follows', async () => {
      await world.volume('pgdata', 'n1', ['n2', 'n3']);
      const n3 = world.node('n3');
      await until('the image is there', 10_000, () => (n3.docker.images.has(imageId) ? true : undefined));
      await n2.stop();
      await Promise.all([n1.stop(), n1.die()]);
      await world.volume('pgdata', 'n2', ['n1', 'n3']);
      await running(n3, 'db');
      assert.deepEqual(n2.docker.states(), {});
      await n2.start();
      await longEnough();
      assert.deepEqual(n2.docker.states(), {}, 'it is made once');
      assert.deepEqual(n3.docker.states(), { db: 'running' });
    });

    it('make what is linked on one node, each after what it is linked with', async () => {
      await world.volume('appdata', 'n1', ['n3']);
      n1.docker.run('app', { mounts: [{ ...flockMount, Name: 'appdata' }], hostConfig: { Links: ['/db:/app/db'] } });
      n1.docker.run('web', { ...routed, hostConfig: { Links: ['/app:/web/app'] } });
      for (const name of ['app', 'web']) {
        const { obstacles } = await world.see(name, 'there', () => true);
        assert.deepEqual(obstacles, []);
      }
      const images = ['n2', 'n3'].map((name) => world.node(name).docker.images);
      await until('the image is there', 10_000, () => (images.every((known) => known.has(imageId)) ? true : undefined));
      await Promise.all([n1.stop(), n1.die()]);
      // Their takers are not the same, and each wants its own.
      await Promise.all([world.volume('appdata', 'n3', ['n1']), world.volume('pgdata', 'n2', ['n1'])]);
      const { node } = await world.see('app', 'elsewhere', (doc) => doc.node !== 'n1');
      for (const name of ['db', 'app', 'web']) await running(world.node(node), name);
      assert.deepEqual(world.node(node).docker.started, ['db', 'app', 'web']);
      // Nothing was tried in vain, which is tried again after half a minute only.
      const texts = (await told('recreated')).map(({ text }) => text);
      assert.ok(
        texts.every((text) => /^made on/.test(text)),
        texts.join('; '),
      );
      assert.deepEqual(await told('failover-refused'), []);
    });

    it('do not link anything with a stranger', async () => {
      await world.volume('appdata', 'n1', ['n2']);
      n1.docker.run('app', { mounts: [{ ...flockMount, Name: 'appdata' }], hostConfig: { Links: ['/db:/app/db'] } });
      await world.see('app', 'there', () => true);
      await until('the image is there', 10_000, () => (n2.docker.images.has(imageId) ? true : undefined));
      n2.docker.run('db', { mounts: [], config: { Labels: {} } });
      await Promise.all([n1.stop(), n1.die()]);
      await world.volume('appdata', 'n2', ['n1']);
      await until('it is told', 10_000, async () =>
        (await told('recreated')).some(({ text }) =>
          /can't be made on n2 yet: it is linked \(--link\) with db/.test(text),
        )
          ? true
          : undefined,
      );
      assert.deepEqual(n2.docker.states(), { db: 'running' });
      n2.docker.personRemoves('db');
      await world.volume('pgdata', 'n2', ['n1']);
      for (const name of ['db', 'app']) await running(n2, name);
    });

    it('make those without volumes on one other node', async () => {
      n1.docker.run('web', routed);
      await world.see('web', 'there', () => true);
      const others = world.nodes.filter((node) => node !== n1);
      await until('the image is brought', 10_000, () =>
        others.some(({ docker }) => docker !== n2.docker && docker.images.has(imageId)) || n2.docker.images.has(imageId)
          ? true
          : undefined,
      );
      await longEnough();
      await Promise.all([n1.stop(), n1.die()]);
      const doc = await world.see('web', 'elsewhere', ({ node, containerId }) => node !== 'n1' && containerId !== null);
      await running(world.node(doc.node), 'web');
      assert.equal(others.filter(({ docker }) => 'web' in docker.states()).length, 1);
    });
  });

  describe('that were away', () => {
    it('take back what has no volumes and could not be made elsewhere', async () => {
      const n3 = world.node('n3');
      await Promise.all([n1.start(), n3.start()]);
      n1.docker.run('web', routed);
      const doc = await world.see('web', 'there', () => true);
      // Nobody knows of it but Docker: it has no label and no volume of flock.
      n3.docker.run('web', { mounts: [], config: { Labels: {} } });
      await Promise.all([n1.stop(), n1.die()]);
      await world.see('web', 'claimed', ({ node, containerId }) => node === 'n3' && containerId === null);
      await Promise.all([n1.live(), n1.start()]);
      const back = await world.see('web', 'back', ({ node }) => node === 'n1');
      assert.deepEqual([back.containerId, back.wanted], [doc.containerId, 'running']);
      await longEnough();
      assert.deepEqual(n1.docker.states(), { web: 'running' });
      assert.deepEqual(n3.docker.states(), { web: 'running' });
      assert.equal((await world.workload('web'))?.node, 'n1');
    });

    it('but nothing without what it is linked with', async () => {
      const n3 = world.node('n3');
      await world.volume('pgdata', 'n1', ['n3']);
      await Promise.all([n1.start(), n3.start()]);
      n1.docker.run('db');
      n1.docker.run('web', { ...routed, hostConfig: { Links: ['/db:/web/db'] } });
      for (const name of ['db', 'web']) await world.see(name, 'there', () => true);
      await until('the image is there', 10_000, () => (n3.docker.images.has(imageId) ? true : undefined));
      n3.docker.run('db', { mounts: [], config: { Labels: {} } });
      await Promise.all([n1.stop(), n1.die()]);
      await world.volume('pgdata', 'n3', ['n1']);
      for (const name of ['db', 'web'])
        await world.see(name, 'claimed', ({ node, containerId }) => node === 'n3' && containerId === null);
      await Promise.all([n1.live(), n1.start()]);
      await longEnough();
      assert.equal((await world.workload('web'))?.node, 'n3', 'its database comes there');
      n3.docker.personRemoves('db');
      for (const name of ['db', 'web']) await running(n3, name);
    });
  });

  describe('tell whether their controller is at work', () => {
    const isAtWork = (name: string) =>
      world.store.entries().some(({ key, session }) => key === `controllers/${name}` && session !== null);

    it('as long as it is', async () => {
      assert.equal(isAtWork('n1'), false);
      await n1.start();
      await until('it is told', 10_000, () => (isAtWork('n1') ? true : undefined));
      await n1.stop();
      assert.equal(isAtWork('n1'), false);
      // One that could not say farewell.
      const old = world.store.connect('old');
      const session = await old.createSession({ name: 'old', ttlMs: 600_000, lockDelayMs: 0 });
      await old.transact([{ kind: 'lock', key: 'controllers/n1', value: '{}', session }]);
      await n1.start();
      const own = () => world.store.entries().find(({ key, value }) => key === 'controllers/n1' && value !== '{}');
      await until('the new one has taken its place', 10_000, () => (own()?.session != null ? true : undefined));
      assert.equal(await old.renewSession(session), false);
      await old.close();
    });

    it('so that nothing without volumes is given to a node that has none', async () => {
      const n3 = world.node('n3');
      await Promise.all([n1.start(), n3.start()]);
      const names = ['one', 'two', 'three', 'four'];
      for (const name of names) {
        n1.docker.run(name, routed);
        await world.see(name, 'there', () => true);
      }
      await until('the image is brought', 10_000, () => (n3.docker.images.has(imageId) ? true : undefined));
      await Promise.all([n1.stop(), n1.die()]);
      for (const name of names) await running(n3, name);
    });
  });

  describe('put away what a move has left', () => {
    it('and what was made for one that failed, but nothing that has run, or that people have copied', async () => {
      await world.volume('pgdata', 'n1', ['n2']);
      await Promise.all([n1.start(), n2.start()]);
      n1.docker.run('db');
      const doc = await world.see('db', 'there', () => true);
      await world.change({ ...doc, move: '0badcafe' });
      const labels = { config: { Labels: { [workloadLabel]: doc.id } } };
      n2.docker.add('db', labels);
      n2.docker.run('db-that-ran', labels);
      n2.docker.add('db-copied-by-people', labels);
      n2.docker.add('stranger', { mounts: [], config: { Labels: {} } });
      await longEnough();
      assert.deepEqual(n2.docker.states(), {
        ...{ db: 'created', 'db-that-ran': 'running' },
        ...{ 'db-copied-by-people': 'created', stranger: 'created' },
      });
      const now = await world.see('db', 'in the move', ({ move }) => move !== null);
      await world.change({ ...now, move: null, revision: now.revision + 1 });
      await until('it is removed', 10_000, () => ('db' in n2.docker.states() ? undefined : true));
      await longEnough();
      const others = { 'db-that-ran': 'running', 'db-copied-by-people': 'created', stranger: 'created' };
      assert.deepEqual(n2.docker.states(), others);
      assert.equal((await told('put-away')).length, 1);

      // A person has started one, beside the workload's own.
      n2.docker.run('db', labels);
      await until('it is put away', 10_000, () => ('db' in n2.docker.states() ? undefined : true));
      await longEnough();
      assert.deepEqual(n2.docker.states(), { ...others, [`db.left-${doc.epoch}`]: 'exited' });
      assert.deepEqual(n1.docker.states(), { db: 'running' });
    });

    it('once the move is over, and never take what was made for it for a workload', async () => {
      await world.volume('pgdata', 'n1', ['n2']);
      await Promise.all([n1.start(), n2.start()]);
      const source = n1.docker.run('db');
      const doc = await world.see('db', 'there', () => true);
      n2.docker.images.set(imageId, { id: imageId, names: new Set(['postgres:15']) });
      await world.change({ ...doc, move: '0badcafe', revision: doc.revision + 1 });
      await longEnough();
      const target = n2.docker.run('db', { config: { Labels: { [workloadLabel]: doc.id } } });
      await longEnough();
      assert.equal((await world.workload('db'))?.containerId, source);
      const keys = () => world.store.entries().filter(({ key }) => key.includes('workloads/'));
      assert.equal(keys().length, 1, 'there is one workload');
      const moved = { ...placedOn(doc, n2.name, target, 'moved'), move: '0badcafe', revision: doc.revision + 2 };
      await world.change(moved);
      await longEnough();
      assert.deepEqual(n1.docker.states(), { db: 'running' }, 'it may still be needed');
      await world.change({ ...moved, move: null, revision: moved.revision + 1 });
      await world.see('db', 'put away', ({ former }) => former.length === 0);
      assert.deepEqual([n1.docker.states(), n2.docker.states()], [{}, { db: 'running' }]);
      assert.equal(keys().length, 1);
    });
  });
});
