import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { poolView } from '../../../controller/model/api.ts';
import { type MoveDoc, type MoveStep, moveLimitsDefault, moveSteps } from '../../../controller/model/move.ts';
import { routeView } from '../../../controller/model/proxy-api.ts';
import { importApp } from '../../support/app-import.ts';
import { appUserOption, appVolumeOptions, nginx } from '../../support/apps.ts';
import type { ClusterHost } from '../../support/cluster/cluster-host.ts';
import {
  answersFrom,
  type Counter,
  checkNoted,
  counterOf,
  loadCounter,
  notedBy,
  ownerOf,
  startCounter,
} from '../../support/cluster/counting.ts';
import { createVolume, fill, type Members, sumOf } from '../../support/cluster/members.ts';
import {
  describe as describeMove,
  happened,
  known,
  type Moving,
  pidOf,
  processesOf,
  reaches,
  signalAll,
  standStillAt,
  startMove,
  workloadsOf,
} from '../../support/cluster/moving.ts';
import type { RequestLoad } from '../../support/cluster/request-load.ts';
import { until } from '../../support/until.ts';

const servesAgainMsMax = 90_000;
/** Later than at the end of the pause some clients have their answers where the processors are busy. */
const lateMsMax = 5_000;
const shortMs = 12_000;
const shortly = ['--timeout', `${shortMs / 1000}s`];
/** How often a move may be through with a step before its controller can be stopped there. */
const triesMax = 6;

/** Something breaks in the middle of a move: the service answers again, on one side, with all of its data, and the record says why. */
export function rollbacks(members: () => Members): void {
  const n = (number: number) => members().n(number);
  const hosts = () => members().cluster.hosts;
  const web = counterOf('web');
  const files = (host: ClusterHost, script: string) => host.docker('exec', 'web', '/usr/bin/node', '-e', script);
  const touch = (host: ClusterHost, name: string) =>
    files(host, `require('node:fs').writeFileSync('/data/${name}', '')`);

  async function begin(counter: Counter = web, options: Parameters<typeof startCounter>[2] = {}): Promise<void> {
    await startCounter(n(1), counter, options);
    await known(members(), n(1), counter.name);
    await answersFrom(hosts(), counter, 'n1');
  }

  /**
   * The service answers from this host at all that are up, and nothing that was answered is missing. Where no request may fail none has waited
   * for longer than the pause.
   */
  async function servedBy(
    host: ClusterHost,
    loads: readonly RequestLoad[],
    mayFail: boolean,
    pauseMs = moveLimitsDefault.pauseMs,
  ): Promise<void> {
    await answersFrom(
      hosts().filter((one) => one.isUp()),
      web,
      host.name,
      servesAgainMsMax,
    );
    const results = await Promise.all(loads.map((one) => one.stop()));
    const { failed, faults, answered } = checkNoted(await notedBy(host, web), results);
    assert.deepEqual(faults, []);
    const longestMs = Math.max(...loads.map((one) => one.seen().longestMs));
    if (!mayFail) {
      assert.deepEqual(failed, []);
      assert.ok(longestMs <= pauseMs + lateMsMax, `a request took ${longestMs} ms, and the pause is ${pauseMs} ms`);
    }
    assert.ok(answered > 20, `${answered} requests`);
    assert.equal((await ownerOf(members(), web.volume)).name, host.name);
    const docs = (await workloadsOf(members())).filter(({ name }) => name === 'web');
    assert.deepEqual(
      docs.map(({ node, wanted }) => [node, wanted]),
      [[host.name, 'running']],
    );
  }

  /** It has turned back for this reason, at this step, and flockctl says so. */
  async function turnedBack(moving: Moving, steps: readonly MoveStep[], reason: RegExp): Promise<MoveDoc> {
    const { move, said, failed } = await moving.over;
    assert.equal(move.step, 'failed', describeMove(move));
    assert.ok(failed, said);
    assert.ok(move.failure !== null && steps.includes(move.failure.step), describeMove(move));
    assert.match(move.failure.reason, reason);
    const shown = await n(3).flockctl('moves', 'show', move.id);
    assert.match(shown, reason);
    await until('the log has it', 10_000, async () =>
      (await happened(members(), 'move-failed', /web|shop/)).length > 0 ? true : undefined,
    );
    return move;
  }

  type Caught = {
    readonly moving: Moving;
    readonly from: ClusterHost;
    readonly to: ClusterHost;
    /** When all stood still (wall clock). */
    readonly atMs: number;
  };

  /** Moves the service to and fro until its source's controller stands still at this step; does the work then, and has it go on. */
  async function caughtAt(
    step: MoveStep,
    first: ClusterHost,
    work: (move: MoveDoc, pids: readonly number[]) => Promise<unknown>,
  ): Promise<Caught> {
    let from = first;
    for (let tries = 1; tries <= triesMax; tries += 1) {
      const to = from.number === 1 ? n(2) : n(1);
      const pids = await processesOf(from, 'flock-controller');
      const moving = startMove(members(), n(3), 'web', to);
      const found = await standStillAt(members(), moving, step, pids);
      if (found !== null) {
        const atMs = Date.now();
        await work(found, pids).finally(() => signalAll(pids, 'SIGCONT'));
        return { moving, from, to, atMs };
      }
      const { move } = await moving.over;
      assert.equal(move.step, 'done', describeMove(move));
      from = to;
    }
    throw new Error(`${triesMax} moves were through with ${step} too soon`);
  }

  describe('moves that go wrong', () => {
    it('the image is nowhere any more', async () => {
      await importApp(n(1), nginx);
      await createVolume(n(1), 'shop-data', appVolumeOptions);
      const options = ['--name', 'shop', '--label', 'flock.service=shop', '--stop-signal', 'SIGQUIT', appUserOption];
      const mount = ['--volume-driver=flock', '-v', 'shop-data:/data'];
      await n(1).docker('run', '-d', ...options, ...mount, nginx.name);
      await known(members(), n(1), 'shop');
      const image = await n(1).docker('image', 'inspect', '--format', '{{.Id}}', nginx.name);
      // Docker refuses to remove the image of a container that runs, and lets one run whose image is gone.
      await n(1).docker('stop', 'shop');
      await n(1).docker('rmi', '-f', image);
      // Others have got it ahead of time, or are just getting it from what Docker has begun to tell.
      const untilMs = Date.now() + 8_000;
      while (Date.now() < untilMs) {
        for (const host of [n(2), n(3)]) await host.docker('rmi', '-f', image).catch(() => '');
        await sleep(250);
      }
      await n(1).docker('start', 'shop');
      await known(members(), n(1), 'shop');
      await until('it is to run', 20_000, async () =>
        (await workloadsOf(members())).some(({ name, wanted }) => name === 'shop' && wanted === 'running')
          ? true
          : undefined,
      );
      await turnedBack(startMove(members(), n(2), 'shop', n(2)), ['preparing'], /image/i);
      assert.equal(await n(1).docker('inspect', '--format', '{{.State.Running}}', 'shop'), 'true');
    });

    it('the target’s pool is full', async () => {
      await begin();
      // Before there is more in the volume: its copy there is always up to date.
      await createVolume(n(2), 'filler', ['replicas=0']);
      const { freeBytes } = poolView.parse(await n(2).json('df'));
      const mebibytes = Math.floor((freeBytes ?? 0) / 2 ** 20) - 80;
      // Others may have taken some of it meanwhile.
      const less = 'm=$((m-20)); test $m -gt 0 || exit 1';
      await n(2).sh('filler', `m=${mebibytes}; until fallocate -l $\{m}M /data/blob; do ${less}; done; sync`);
      const sum = await fill(n(1), web.volume, 200);
      const loads = loadCounter(hosts(), web);
      const moving = startMove(members(), n(1), 'web', n(2));
      const refused = await moving.begun.then(
        () => null,
        (error: Error) => error.message,
      );
      if (refused === null) await turnedBack(moving, ['copying', 'committing'], /full|room|space/i);
      else assert.match(refused, /full|room|space/i);
      await servedBy(n(1), loads, false);
      assert.equal(await sumOf(n(1), web.volume), sum);
      await n(2).flockctl('volume', 'rm', 'filler');
      for (const { id } of (await n(2).json('trash', 'ls')) as readonly { readonly id: string }[])
        await n(2).flockctl('trash', 'purge', id);
    });

    it('the target is killed while it gets the data', async () => {
      await begin();
      await fill(n(1), web.volume, 300);
      const loads = loadCounter([n(1), n(3)], web);
      const moving = startMove(members(), n(1), 'web', n(2));
      await reaches(members(), moving, 'copying');
      await n(2).kill();
      const { move } = await moving.over;
      // It may have been quicker; then it was killed after the commit, and this is a failover.
      await servedBy(n(1), loads, true);
      if (move.step === 'failed') assert.match(move.failure?.reason ?? '', /n2|dead|connect|broke/, describeMove(move));
    });

    it('the target is killed while it starts the container: the source has it again', async () => {
      await begin();
      await touch(n(1), 'slow');
      const loads = loadCounter([n(1), n(3)], web);
      const moving = startMove(members(), n(1), 'web', n(2));
      assert.equal((await reaches(members(), moving, 'starting')).step, 'starting');
      await n(2).kill();
      const { move } = await moving.over;
      assert.deepEqual([move.step, move.failure], ['failed', { step: 'starting', reason: 'n2 is dead' }]);
      await servedBy(n(1), loads, true);
      await n(2).boot();
      await until('n2 has no container of it that runs', 60_000, async () => {
        const names = await n(2)
          .docker('ps', '--format', '{{.Names}}')
          .catch(() => 'web');
        return names.split('\n').includes('web') ? undefined : true;
      });
    });

    it('the source’s controller is killed in each step: it ends as the record says', async function () {
      this.timeout(480_000);
      await begin();
      const loads = loadCounter(hosts(), web);
      let at = n(1);
      const steps: readonly MoveStep[] = ['preparing', 'copying', 'pausing', 'draining', 'stopping', 'committing'];
      const order = (step: MoveStep) => moveSteps.indexOf(step);
      for (const step of [...steps, 'cleaning' as const]) {
        const { moving, from, to, atMs } = await caughtAt(step, at, async (_, pids) => signalAll(pids, 'SIGKILL'));
        const { move } = await moving.over;
        const text = `killed at ${step}: ${describeMove(move)}`;
        if (move.step === 'done') assert.equal(move.failure, null, text);
        else assert.ok(move.failure !== null && order(move.failure.step) >= order(step), text);
        // The other two are the target's, and the plugin's.
        const line = move.history.find((one) => one.step === step);
        if (step !== 'preparing' && step !== 'committing')
          assert.ok(line !== undefined && line.startedAtMs + line.ms >= atMs, `it was over before ${atMs}; ${text}`);
        at = move.step === 'done' ? to : from;
        await answersFrom(hosts(), web, at.name, servesAgainMsMax);
      }
      await servedBy(at, loads, false);
    });

    it('somebody aborts it while data is copied, and while requests end: it is served on, by the same process', async () => {
      await begin();
      const startedAt = () => n(1).docker('inspect', '--format', '{{.State.StartedAt}}', 'web');
      const started = await startedAt();
      const loads = loadCounter(hosts(), web);
      let at = n(1);
      for (const [step, next] of [
        ['copying', 'pausing'],
        ['draining', 'stopping'],
      ] as const) {
        const { moving, from } = await caughtAt(step, at, async ({ id }) =>
          assert.match(await n(3).flockctl('moves', 'abort', id), new RegExp(`^Move ${id} of web turns back`)),
        );
        // What it has written itself meanwhile is the next step, which is not begun then.
        await turnedBack(moving, [step, next], /turned back: a person asked for it/);
        at = from;
      }
      if (at === n(1)) assert.equal(await startedAt(), started);
      const other = at === n(1) ? n(2) : n(1);
      assert.ok(!(await other.docker('ps', '-a', '--format', '{{.Names}}')).split('\n').includes('web'));
      await servedBy(at, loads, false);
    });

    it('a person changes it while data is copied, so it goes at the next try as it is then; nobody waits for a port where nothing listens', async () => {
      await begin();
      await n(1).flockctl('route', 'add', 'tcp://:7019 -> web:9');
      const loads = loadCounter(hosts(), web);
      const changed = async ({ from }: MoveDoc) => {
        const host = hosts().find(({ name }) => name === from);
        await host?.docker('update', '--memory', '300m', '--memory-swap', '300m', 'web');
      };
      const { moving, to } = await caughtAt('copying', n(1), changed);
      await turnedBack(moving, ['copying', 'pausing'], /web was changed meanwhile/);
      await until('the change is written down', 10_000, async () =>
        (await workloadsOf(members())).some(({ spec }) => JSON.stringify(spec.create).includes('"Memory":314572800'))
          ? true
          : undefined,
      );
      const { move } = await startMove(members(), n(3), 'web', to).over;
      assert.equal(move.step, 'done', describeMove(move));
      assert.deepEqual(move.members[0]?.closedPorts, [9]);
      assert.match(await to.docker('inspect', '--format', '{{.HostConfig.Memory}}', 'web'), /^314572800$/m);
      const routes = z.array(routeView).parse(await n(1).json('route', 'ls'));
      for (const { id } of routes.filter(({ origin }) => origin.kind === 'flockctl'))
        await n(1).flockctl('route', 'rm', id);
      await servedBy(to, loads, false);
    });

    it('the target’s controller goes and stays away: nothing is moved there, and what was has a reason', async () => {
      const stateOf = async (name: string) =>
        (await n(3).flockctl('node', 'ls')).split('\n').find((line) => line.startsWith(`${name} `)) ?? '';
      const stays = async () => {
        await n(2).docker('stop', 'flock-controller');
        await until('that is seen', 10_000, async () =>
          (await stateOf('n2')).includes('up, no controller') ? true : undefined,
        );
      };
      const comesBack = async () => {
        await n(2).docker('start', 'flock-controller');
        await until('that is seen', 10_000, async () => (/ up +\d/.test(await stateOf('n2')) ? true : undefined));
      };
      await begin();
      await stays();
      await assert.rejects(startMove(members(), n(1), 'web', n(2)).begun, /the controller of n2 is not at work/);
      await comesBack();
      await touch(n(1), 'slow');
      const loads = loadCounter(hosts(), web);
      const moving = startMove(members(), n(3), 'web', n(2));
      await reaches(members(), moving, 'starting');
      // Nobody else could start it.
      await until('it runs on n2', 20_000, async () =>
        (await n(2).docker('ps', '--format', '{{.Names}}')).split('\n').includes('web') ? true : undefined,
      );
      await stays();
      try {
        await turnedBack(moving, ['starting'], /the controller of n2 has gone/);
        await servedBy(n(2), loads, true);
        await until('nothing is left on n1', 20_000, async () =>
          (await n(1).docker('ps', '-a', '--format', '{{.Names}}')).split('\n').includes('web') ? undefined : true,
        );
      } finally {
        await comesBack();
      }
    });

    it('a proxy does not say that it holds: nothing was stopped', async () => {
      await begin();
      const started = await n(1).docker('inspect', '--format', '{{.State.StartedAt}}', 'web');
      const loads = loadCounter(hosts(), web);
      const pid = String(await pidOf(n(3), 'flock-proxy'));
      await n(3).host.run('kill', ['-STOP', pid]);
      try {
        await turnedBack(startMove(members(), n(1), 'web', n(2), shortly), ['pausing'], /n3/);
      } finally {
        await n(3).host.run('kill', ['-CONT', pid]);
      }
      await servedBy(n(1), loads, false, shortMs);
      assert.equal(await n(1).docker('inspect', '--format', '{{.State.StartedAt}}', 'web'), started);
    });

    it('a port of it is taken on the target, and its name', async () => {
      await begin(web, { run: ['-p', '9099:8080'] });
      await n(2).docker('run', '-d', '--name', 'other', '-p', '9099:80', 'flock/busybox:latest', 'sleep', '10000');
      const loads = loadCounter(hosts(), web);
      await turnedBack(startMove(members(), n(1), 'web', n(2)), ['preparing', 'starting'], /9099|port/);
      await servedBy(n(1), loads, false);
      await n(2).docker('rm', '-f', 'other');
      await n(2).docker('run', '-d', '--name', 'web', 'flock/busybox:latest', 'sleep', '10000');
      const moving = startMove(members(), n(1), 'web', n(2));
      const refused = await moving.begun.then(
        () => null,
        (error: Error) => error.message,
      );
      if (refused === null) await turnedBack(moving, ['preparing'], /web/);
      else assert.match(refused, /web/);
      assert.equal(await n(2).docker('inspect', '--format', '{{.State.Running}}', 'web'), 'true');
      await n(2).docker('rm', '-f', 'web');
    });

    it('it can’t be started on the target: its port was free there, and is not any more', async () => {
      await begin(web, { run: ['-p', '9099:8080'] });
      await fill(n(1), web.volume, 150);
      await n(2).docker('create', '--name', 'other', '-p', '9099:80', 'flock/busybox:latest', 'sleep', '10000');
      const loads = loadCounter(hosts(), web);
      const moving = startMove(members(), n(1), 'web', n(2), shortly);
      await reaches(members(), moving, 'copying');
      await n(2).docker('start', 'other');
      await turnedBack(moving, ['starting'], /9099|port/);
      await servedBy(n(1), loads, false, shortMs);
      await n(2).docker('rm', '-f', 'other');
    });

    it('it never becomes ready on the target', async () => {
      await begin();
      await touch(n(1), 'mute-n2');
      const loads = loadCounter(hosts(), web);
      await turnedBack(startMove(members(), n(1), 'web', n(2), shortly), ['starting'], /ready|8080/);
      await servedBy(n(1), loads, false, shortMs);
    });

    it('Consul’s leader dies while data is copied, and while the volumes change hands', async () => {
      await begin();
      const loads = loadCounter(hosts(), web);
      let at = n(1);
      for (const step of ['copying', 'committing'] as const) {
        const leading = await members().cluster.waitForLeader();
        let undo = async () => {};
        const { moving, from, to } = await caughtAt(step, at, async () => {
          undo = await leading.killDaemon('consul');
        });
        await sleep(3_000);
        await undo();
        const { move } = await moving.over;
        if (move.step === 'done') assert.equal(move.failure, null, describeMove(move));
        // Without its own Consul a host is dead for the others after a while.
        else assert.match(move.failure?.reason ?? '', /Consul|store|is dead|has gone/, describeMove(move));
        at = move.step === 'done' ? to : from;
        await answersFrom(hosts(), web, at.name, servesAgainMsMax);
        await members().cluster.waitForConsul();
      }
      await servedBy(at, loads, true);
    });
  });
}
