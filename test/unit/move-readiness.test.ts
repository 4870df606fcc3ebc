import assert from 'node:assert/strict';
import { FlockError } from '../../controller/model/errors.ts';
import type { MoveTools } from '../../controller/moves/ports.ts';
import { type Inspected, lacks } from '../../controller/moves/readiness.ts';

type Asked = { readonly command: readonly string[]; readonly ms: number };

function toolsWith(
  answer: { readonly exitCode: number | null; readonly output: string },
  open: readonly number[] = [],
): { readonly tools: MoveTools; readonly asked: Asked[] } {
  const asked: Asked[] = [];
  const tools: Pick<MoveTools, 'reach' | 'clock'> & { docker: Pick<MoveTools['docker'], 'execute'> } = {
    reach: async (_address, port) => open.includes(port),
    clock: { nowMs: () => 0, bootMs: () => 1_000, sleep: async () => undefined, randomHex: () => '' },
    docker: {
      async execute(_id, command, ms) {
        asked.push({ command, ms });
        return answer;
      },
    },
  };
  return { tools: tools as MoveTools, asked };
}

function found(health: string | null, config: Inspected['Config'] = null): Inspected {
  return {
    State: {
      Running: true,
      Restarting: false,
      ExitCode: 0,
      Error: '',
      Health: health === null ? null : { Status: health },
    },
    Config: config,
    HostConfig: { NetworkMode: 'bridge' },
    NetworkSettings: { Networks: { bridge: placed('172.17.0.2', '172.17.0.1') } },
  };
}

const placed = (IPAddress: string, Gateway: string) => ({ IPAddress, Gateway, GlobalIPv6Address: '', IPv6Gateway: '' });

const ask = (tools: MoveTools, of: Inspected, ports: readonly number[], forMs = 0, isUnhealthy = false) =>
  lacks(tools, { id: 'c', found: of, ports, isUnhealthy, forMs, untilBootMs: 21_000 }, new AbortController().signal);

const fine = { exitCode: 0, output: '' };
const shellCheck = { Healthcheck: { Test: ['CMD-SHELL', 'pg_isready || exit 1'], Timeout: 3_000_000_000 } };

describe('a container that was started', () => {
  it('is ready when its ports take connections', async () => {
    const { tools, asked } = toolsWith(fine, [80]);
    assert.equal(await ask(tools, found(null), [80]), null);
    assert.equal(await ask(tools, found(null), [80, 443]), 'takes no connections on port 443');
    assert.deepEqual(asked, []);
  });

  it('is asked where the proxy would serve from it, not at an address that its host can’t reach', async () => {
    const { tools } = toolsWith(fine);
    const asked: string[] = [];
    const reach: MoveTools['reach'] = async (address) => {
      asked.push(address);
      return true;
    };
    const Networks = { app: placed('10.0.1.5', ''), bridge: placed('172.17.0.2', '172.17.0.1') };
    const inBoth = { ...found(null), HostConfig: { NetworkMode: 'app' }, NetworkSettings: { Networks } };
    assert.equal(await ask({ ...tools, reach }, inBoth, [80]), null);
    assert.deepEqual(asked, ['172.17.0.2']);
  });

  it('is not ready by its ports alone when it has a health check, which is run at once', async () => {
    const ill = toolsWith({ exitCode: 2, output: 'no response\n' }, [5432]);
    assert.equal(
      await ask(ill.tools, found('starting', shellCheck), [5432]),
      'is not healthy: its health check ended with 2: no response',
    );
    assert.deepEqual(ill.asked, [{ command: ['/bin/sh', '-c', 'pg_isready || exit 1'], ms: 3_000 }]);
    const well = toolsWith(fine, [5432]);
    assert.equal(await ask(well.tools, found('starting', shellCheck), [5432]), null);
    assert.equal(await ask(well.tools, found('starting', shellCheck), [5433]), 'takes no connections on port 5433');
    assert.equal(well.asked.length, 1);
  });

  it('is ready by its ports, or as without a check, when that had failed before it was moved', async () => {
    const { tools, asked } = toolsWith({ exitCode: 127, output: 'curl: not found' }, [5432]);
    const ill = (ports: readonly number[], forMs: number) =>
      ask(tools, found('starting', shellCheck), ports, forMs, true);
    assert.equal(await ill([5432], 0), null);
    assert.equal(await ill([5433], 0), 'takes no connections on port 5433');
    assert.equal(await ill([], 1_000), 'has just been started');
    assert.equal(await ill([], 2_100), null);
    assert.deepEqual(asked, []);
  });

  it('is ready when Docker says that it is healthy', async () => {
    const { tools, asked } = toolsWith({ exitCode: 1, output: '' });
    assert.equal(await ask(tools, found('healthy', shellCheck), []), null);
    assert.deepEqual(asked, []);
  });

  it('has its check run as Docker would run it, and not beyond its time', async () => {
    const slow = toolsWith({ exitCode: null, output: '' });
    const own = { Healthcheck: { Test: ['CMD-SHELL', 'check'] }, Shell: ['/bin/bash', '-ec'] };
    assert.equal(
      await ask(slow.tools, found('starting', own), []),
      'is not healthy: its health check did not end within 20000 ms',
    );
    await ask(slow.tools, found('starting', { Healthcheck: { Test: ['CMD', 'check', '-v'] } }), []);
    assert.deepEqual(slow.asked, [
      { command: ['/bin/bash', '-ec', 'check'], ms: 20_000 },
      { command: ['check', '-v'], ms: 20_000 },
    ]);
  });

  it('is not ready when its check can’t be run, for it may have ended just now', async () => {
    const { tools } = toolsWith(fine);
    tools.docker.execute = async () => {
      throw new FlockError('docker-failed', 'the container is not running');
    };
    assert.equal(
      await ask(tools, found('starting', shellCheck), []),
      'is not known to be healthy: the container is not running',
    );
  });

  it('without ports and check is ready when it has not ended soon', async () => {
    const { tools, asked } = toolsWith(fine);
    const none = { Healthcheck: { Test: ['NONE'] } };
    assert.equal(await ask(tools, found(null, none), [], 1_000), 'has just been started');
    assert.equal(await ask(tools, found(null, none), [], 2_100), null);
    assert.deepEqual(asked, []);
  });
});
