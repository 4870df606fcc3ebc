import assert from 'node:assert/strict';
import { FlockError } from '../../controller/model/errors.ts';
import { backoffMs, type RevivalFacts, reviveOf } from '../../controller/model/revival.ts';
import type { WorkloadDoc } from '../../controller/model/workload.ts';
import { createEndings } from '../../controller/program/endings.ts';
import { createReviver } from '../../controller/program/reviver.ts';
import { inspected } from '../support/inspected.ts';
import { silent } from '../support/proxy-fakes.ts';

const unanswered = new Promise<never>(() => {});

const base: RevivalFacts = {
  wanted: 'running',
  status: 'exited',
  exitCode: 137,
  error: '',
  policy: { name: 'no', retriesMax: 0 },
  restartCount: 0,
  wasRestarting: false,
  isOneOff: false,
  isSwarmTask: false,
  ending: 'by-itself',
  downMs: 60_000,
  watchedMs: 600_000,
};
const kindOf = (changes: Partial<RevivalFacts>) => {
  const revival = reviveOf({ ...base, ...changes });
  return revival.kind === 'wanted' ? revival.wanted : revival.kind;
};
const always = { policy: { name: 'always', retriesMax: 0 } };
const unlessStopped = { policy: { name: 'unless-stopped', retriesMax: 0 } };
const onFailure = (retriesMax: number) => ({ policy: { name: 'on-failure', retriesMax } });

describe('a container that does not run', () => {
  it('although it was to, is started again, whatever its code', () => {
    for (const exitCode of [1, 137, 255]) assert.equal(kindOf({ exitCode }), 'start');
    assert.equal(kindOf({ status: 'created' }), 'start', 'it was made here, to run');
  });

  it('stays down when a person stopped it, whatever its policy', () => {
    for (const policy of [{}, always, unlessStopped, onFailure(3)])
      for (const exitCode of [0, 137]) assert.equal(kindOf({ ...policy, exitCode, ending: 'signalled' }), 'stopped');
    assert.equal(kindOf({ wanted: 'stopped' }), 'none');
    assert.equal(kindOf({ wanted: 'stopped', status: 'created' }), 'none');
  });

  it('is started again when a move had stopped it that came to nothing', () => {
    for (const policy of [{}, always, unlessStopped, onFailure(3)])
      for (const exitCode of [0, 137]) assert.equal(kindOf({ ...policy, exitCode, ending: 'by-flock' }), 'start');
    assert.equal(kindOf({ wanted: 'stopped', ending: 'by-flock' }), 'none');
  });

  it('stays down when it has finished', () => {
    assert.equal(kindOf({ exitCode: 0 }), 'stopped');
    assert.equal(kindOf({ ...onFailure(0), exitCode: 0 }), 'stopped');
    assert.equal(kindOf({ ...onFailure(0), exitCode: 0, ending: 'unknown' }), 'start', 'Docker was restarted');
    assert.equal(kindOf({ isOneOff: true }), 'stopped', 'its terminal was closed');
  });

  it('is left to Docker where that restarts it', () => {
    assert.equal(kindOf({ ...always, status: 'restarting' }), 'none');
    for (const policy of [always, unlessStopped, onFailure(0), onFailure(5)]) {
      assert.equal(kindOf({ ...policy, downMs: 1_000 }), 'wait');
      assert.equal(kindOf({ ...policy, downMs: 6_000 }), 'start', 'Docker did not');
    }
    assert.equal(kindOf({ ...onFailure(5), restartCount: 5 }), 'stopped', 'as often as it was allowed');
    assert.equal(kindOf({ ...onFailure(0), restartCount: 5 }), 'start');
  });

  it('stays down when a person killed it before Docker had restarted it, of which there is no event', () => {
    for (const policy of [always, unlessStopped, onFailure(0)]) {
      assert.equal(kindOf({ ...policy, wasRestarting: true }), 'stopped');
      assert.equal(kindOf({ ...policy, wasRestarting: true, error: 'mounting failed' }), 'start', 'Docker has tried');
    }
  });

  it('is started again when Docker could not start it', () => {
    for (const policy of [{}, always, onFailure(1)])
      assert.equal(
        kindOf({ ...policy, ending: 'unknown', error: 'mounting failed', watchedMs: 0, restartCount: 1 }),
        'start',
      );
  });

  it('is started again when a person has restarted it, and Docker could not start it', () => {
    for (const policy of [{}, always, onFailure(1)])
      assert.equal(kindOf({ ...policy, ending: 'signalled', error: 'mounting failed' }), 'start');
  });

  it('whose end nobody has seen is started, unless Docker at its own start would have done so', () => {
    assert.equal(kindOf({ ending: 'unknown' }), 'start');
    assert.equal(kindOf({ ending: 'unknown', exitCode: 0 }), 'start', 'a clean shutdown of the host ends it like this');
    for (const policy of [always, unlessStopped]) {
      assert.equal(kindOf({ ...policy, ending: 'unknown', watchedMs: 3_000 }), 'wait');
      assert.equal(kindOf({ ...policy, ending: 'unknown', watchedMs: 16_000 }), 'stopped');
    }
  });

  it('is not judged before Docker has told why it ended', () => {
    assert.deepEqual(reviveOf({ ...base, downMs: 100 }), { kind: 'wait', ms: 200 });
    assert.deepEqual(reviveOf({ ...base, ending: 'signalled', downMs: 500 }), { kind: 'wait', ms: 1_500 });
  });

  it('is Swarm’s, if it is a task of Swarm', () => assert.equal(kindOf({ isSwarmTask: true }), 'stopped'));
});

describe('a container that runs', () => {
  it('is to run from now on', () => {
    for (const status of ['running', 'paused', 'restarting']) {
      assert.equal(kindOf({ status }), 'none');
      assert.equal(kindOf({ status, wanted: 'stopped' }), 'running');
    }
  });
});

describe('what Docker said of a container before it was started', () => {
  it('is no reason for anything', () => {
    for (const policy of [base.policy, { name: 'always', retriesMax: 0 }])
      for (const wanted of ['running', 'stopped'] as const)
        assert.notEqual(kindOf({ policy, wanted, ending: 'started', watchedMs: 60_000, downMs: 4_000 }), 'stopped');
    assert.equal(kindOf({ ending: 'started', downMs: 4_000 }), 'wait');
    assert.equal(kindOf({ ending: 'started', downMs: 6_000 }), 'start', 'Docker has not told its end');
  });
});

describe('attempts to start a container', () => {
  it('come more and more seldom, but never stop', () => {
    assert.deepEqual([0, 1, 2, 3, 7, 1_000].map(backoffMs), [0, 1_000, 2_000, 4_000, 60_000, 60_000]);
  });
});

describe('why a container has ended', () => {
  const tell = (endings: ReturnType<typeof createEndings>, action: string, signal: string | null = null) =>
    endings.take({ container: 'a', action, signal });

  it('is a person’s wish if Docker was asked to end it, in whatever order that is told', () => {
    for (const actions of [
      ['kill', 'die'],
      ['die', 'kill'],
      ['die', 'stop'],
    ]) {
      const endings = createEndings(() => 0);
      for (const action of actions) tell(endings, action, action === 'kill' ? '15' : null);
      assert.equal(endings.of('a', null), 'signalled', actions.join());
    }
  });

  it('is flock’s own, until the container is started again', () => {
    const endings = createEndings(() => 0);
    void endings.stop('a', () => unanswered);
    for (const action of ['kill', 'die', 'stop']) tell(endings, action, action === 'kill' ? '15' : null);
    assert.equal(endings.of('a', null), 'by-flock');
    endings.take(null);
    assert.equal(endings.of('a', null), 'by-flock', 'whatever Docker can’t tell any more');
    tell(endings, 'start');
    for (const action of ['kill', 'die']) tell(endings, action, action === 'kill' ? '15' : null);
    assert.equal(endings.of('a', null), 'signalled');
  });

  it('is not flock’s own any more some seconds after Docker has answered, done or refused', async () => {
    let nowMs = 0;
    const endings = createEndings(() => nowMs);
    const isEnded = async (ms: number) => {
      nowMs += ms;
      for (const action of ['kill', 'die', 'stop']) tell(endings, action, action === 'kill' ? '15' : null);
      const ending = endings.of('a', null);
      tell(endings, 'start');
      return ending;
    };
    const fails = (status: number | null, code = 'ABORT_ERR') =>
      assert.rejects(
        endings.stop('a', () => {
          const cause = Object.assign(new Error('no'), { code });
          return Promise.reject(new FlockError('docker-failed', 'no', { status }, { cause }));
        }),
        /no/,
      );

    await endings.stop('a', async () => {});
    assert.equal(await isEnded(5_001), 'signalled');
    await fails(409);
    assert.equal(await isEnded(5_001), 'signalled');
    await fails(null, 'ECONNREFUSED');
    assert.equal(await isEnded(5_001), 'signalled', 'it was not there');
    await fails(500);
    assert.equal(await isEnded(60_000), 'by-flock', 'it hung in the kernel, and was killed all the same');
    await fails(null);
    assert.equal(await isEnded(300_000), 'by-flock', 'Docker hung, and has done it now');
    await fails(null);
    assert.equal(await isEnded(600_001), 'signalled', 'whatever it was asked then');
    void endings.stop('a', () => unanswered);
    assert.equal(await isEnded(600_001), 'by-flock', 'Docker has not answered yet');
  });

  it('is its own if no signal was sent, or one that ends nothing', () => {
    const endings = createEndings(() => 0);
    assert.equal(endings.of('a', null), 'unknown');
    tell(endings, 'kill', '1');
    tell(endings, 'die');
    assert.equal(endings.of('a', null), 'by-itself', 'SIGHUP has programs read their files again');
    assert.equal(endings.of('b', null), 'unknown');
  });

  it('is the signal that the image calls its own', () => {
    for (const [name, number] of [
      ['SIGWINCH', '28'],
      ['USR1', '10'],
      ['37', '37'],
      ['SIGRTMIN+3', '37'],
    ] as const) {
      const endings = createEndings(() => 0);
      tell(endings, 'kill', number);
      tell(endings, 'die');
      assert.equal(endings.of('a', null), 'by-itself');
      assert.equal(endings.of('a', name), 'signalled', name);
    }
  });

  it('is forgotten when it starts, and when events were missed', () => {
    let nowMs = 0;
    const endings = createEndings(() => nowMs);
    tell(endings, 'kill', '9');
    tell(endings, 'die');
    tell(endings, 'start');
    assert.equal(endings.of('a', null), 'started');
    tell(endings, 'die');
    assert.equal(endings.of('a', null), 'by-itself');
    nowMs = 5_000;
    assert.equal(endings.watchedMs(), 5_000);
    endings.take(null);
    assert.equal(endings.of('a', null), 'unknown');
    assert.equal(endings.watchedMs(), 0);
  });

  it('is its own if it ends long after a signal that it did not heed', () => {
    let nowMs = 0;
    const endings = createEndings(() => nowMs);
    tell(endings, 'kill', '15');
    nowMs = 3_600_000;
    tell(endings, 'die');
    assert.equal(endings.of('a', null), 'by-itself');
  });
});

describe('what is done about a container that Docker was about to restart', () => {
  const first = '2026-01-01T00:00:01.1Z';
  const second = '2026-01-01T00:00:09.1Z';
  let nowMs = 0;
  const judging = () => {
    nowMs = 0;
    const endings = createEndings(() => nowMs);
    const reviver = createReviver({
      docker: { start: async () => undefined },
      events: { tell: () => undefined },
      clock: { bootMs: () => nowMs },
      ...{ endings, log: silent },
    });
    const judge = (Status: string, StartedAt: string) => {
      nowMs += 10_000;
      const container = inspected({ state: { Status, StartedAt, ExitCode: 1 } });
      return { id: container.Id, revival: reviver.judge(container, { wanted: 'running' } as WorkloadDoc) };
    };
    const { id } = judge('running', first);
    const tell = (action: string) => endings.take({ container: id, action, signal: null });
    return { judge, tell };
  };

  it('is nothing when a person has killed it meanwhile', () => {
    const { judge, tell } = judging();
    tell('die');
    assert.equal(judge('restarting', first).revival.kind, 'none');
    assert.partialDeepStrictEqual(judge('exited', first).revival, { kind: 'wanted', wanted: 'stopped' });
  });

  it('is a start when it was restarted, and has ended once more', () => {
    const { judge, tell } = judging();
    tell('die');
    judge('restarting', first);
    tell('start');
    tell('die');
    assert.equal(judge('exited', second).revival.kind, 'start');
  });
});

describe('what is told of a container that crashes again and again', () => {
  it('is one event in ten minutes, with how often it was', async () => {
    let nowMs = 0;
    const texts: string[] = [];
    const reviver = createReviver({
      docker: { start: async () => undefined },
      events: { tell: (_kind, _subject, text) => void texts.push(text) },
      clock: { bootMs: () => nowMs },
      ...{ endings: createEndings(() => nowMs), log: silent },
    });
    const doc = { name: 'web', wanted: 'running' } as WorkloadDoc;
    for (; nowMs <= 600_000; nowMs += 20_000) {
      const container = inspected({ state: { Status: 'running' } });
      reviver.judge(container, doc);
      nowMs += 10_000;
      reviver.judge(container, doc);
      await reviver.start(doc, container.Id, 'it had ended by itself with code 1');
    }
    assert.deepEqual(texts, [
      'started: it had ended by itself with code 1',
      'started: it had ended by itself with code 1 (19 times more since that was told last)',
    ]);
  });
});
