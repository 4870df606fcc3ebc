import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { reach } from '../../controller/docker/reach.ts';
import { createListening, type Listening } from '../../proxy/documents/listening.ts';
import { type ContainerDoc, inspectedSchema, readContainer } from '../../proxy/model/containers.ts';
import { parseServiceName } from '../../proxy/model/names.ts';
import { dockerAnswer, here, idOf } from '../support/proxy-fakes.ts';
import { until } from '../support/until.ts';

const web = parseServiceName('web');
const at = 1_800_000_000_000;
const second = (ms: number) => ({ Status: 'running', Pid: 1, StartedAt: new Date(ms).toISOString() });

describe('containers that take connections', () => {
  const servers: Server[] = [];
  let listening: Listening;
  let changes: number;
  /** What the clock is ahead. */
  let aheadMs: number;
  let stop: AbortController;
  let running: Promise<void>;

  const listen = async (port = 0): Promise<number> => {
    const server = createServer((socket) => void socket.on('error', () => undefined).end()).listen(port, '127.0.0.1');
    servers.push(server);
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  };
  const closedPort = async (): Promise<number> => {
    const port = await listen();
    const server = servers.pop();
    server?.close();
    return port;
  };
  const container = (State: object, labels: Readonly<Record<string, string>> = { 'flock.service': 'web' }) =>
    readContainer(
      inspectedSchema.parse(dockerAnswer(idOf('a'), 'web-1', labels, { State, HostConfig: { NetworkMode: 'host' } })),
      '127.0.0.1',
    );
  const judged = (State: object, ports: readonly number[], before: readonly ContainerDoc[] = []) => {
    const [one] = listening.judge([container(State)], new Map([[web, new Set(ports)]]), before);
    assert.ok(one !== undefined);
    return one.facts.healthy ? 'healthy' : one.facts.starting === true ? 'starting' : 'not healthy';
  };
  const isHealthy = (State: object, ports: readonly number[]) => () =>
    judged(State, ports) === 'healthy' ? true : undefined;

  beforeEach(() => {
    changes = 0;
    aheadMs = 0;
    const onChange = () => {
      changes += 1;
    };
    listening = createListening({ onChange, nowMs: () => performance.now() + aheadMs });
    stop = new AbortController();
    running = listening.run(stop.signal);
  });
  afterEach(async () => {
    stop.abort();
    await running;
    for (const server of servers.splice(0)) server.close();
  });

  it('are starting until each port has taken one, and then healthy until their next start', async () => {
    const [open, late] = [await listen(), await closedPort()];
    const first = second(at);
    const waitsFor = () => listening.judge([container(first)], new Map([[web, new Set([open, late])]]), [])[0];
    assert.deepEqual(waitsFor()?.facts.closedPorts, [open, late].toSorted());
    await until('the open port is told', 5_000, () => (changes === 1 ? true : undefined));
    await sleep(300);
    assert.equal(judged(first, [open, late]), 'starting');
    assert.deepEqual(waitsFor()?.facts.closedPorts, [late]);
    assert.equal(changes, 1);
    await listen(late);
    await until('the change is told', 5_000, () => (changes === 2 ? true : undefined));
    assert.equal(judged(first, [open, late]), 'healthy');
    servers.pop()?.close();
    assert.equal(judged(first, [open, late, 1]), 'healthy', 'a port that nobody asked for at first changes nothing');
    assert.equal(judged(second(at + 1_000), [open, late]), 'starting');
  });

  it('are asked about at all ports for ten seconds; one that takes them is enough then', async () => {
    const [open, closed] = [await listen(), await closedPort()];
    const state = second(at);
    assert.equal(judged(state, [open, closed]), 'starting');
    aheadMs = 5_000;
    await sleep(300);
    assert.equal(judged(state, [open, closed]), 'starting');
    aheadMs = 10_000;
    await until('it is healthy', 5_000, isHealthy(state, [open, closed]));
    const other = second(at + 1_000);
    assert.equal(judged(other, [closed]), 'starting');
    aheadMs = 70_000;
    await sleep(300);
    assert.equal(judged(other, [closed]), 'starting', 'none does');
  });

  it('are not asked: with a health check, without ports, while they do not run, or known from before', async () => {
    const closed = await closedPort();
    const state = second(at);
    assert.equal(judged({ ...state, Health: { Status: 'healthy' } }, [closed]), 'healthy');
    assert.equal(judged({ ...state, Health: { Status: 'unhealthy' } }, [closed]), 'not healthy');
    assert.equal(judged(state, []), 'healthy');
    assert.equal(judged({ ...state, Status: 'exited', Pid: 0 }, [closed]), 'not healthy');
    const { facts } = container(state);
    const before = { ...facts, node: here, inner: { address: '127.0.0.1', ports: {} }, linkPorts: {} };
    assert.equal(judged(state, [closed], [before]), 'healthy');
    assert.equal(judged({ ...state, Status: 'paused' }, [closed], [before]), 'not healthy');
    assert.equal(judged(state, [closed]), 'healthy', 'it was paused only');
    const again = second(at + 1_000);
    assert.equal(judged(again, [closed], [before]), 'starting', 'it has been started anew since');
    assert.equal(judged(second(at + 2_000), [closed], [{ ...before, healthy: false, starting: true }]), 'starting');
    await sleep(200);
    assert.equal(changes, 0);
  });

  it('are asked each on its own: one that answers nothing holds up no other', async () => {
    const asked: string[] = [];
    const never = Promise.withResolvers<boolean>();
    const ended = new AbortController();
    const slow = createListening({
      onChange: () => undefined,
      reach: async (address) => {
        asked.push(address);
        return address === '172.17.0.2' ? await never.promise : asked.length > 5;
      },
    });
    const done = slow.run(ended.signal);
    const ports = new Map([[web, new Set([1])]]);
    const bridge = (digit: string, IPAddress: string) =>
      readContainer(
        inspectedSchema.parse(
          dockerAnswer(
            idOf(digit),
            digit,
            { 'flock.service': 'web' },
            { NetworkSettings: { Networks: { bridge: { IPAddress } } } },
          ),
        ),
        '10.0.0.1',
      );
    await until('the other one is healthy', 5_000, () =>
      slow.judge([bridge('a', '172.17.0.2'), bridge('b', '172.17.0.3')], ports, [])[1]?.facts.healthy === true
        ? true
        : undefined,
    );
    assert.equal(asked.filter((address) => address === '172.17.0.2').length, 1);
    never.resolve(false);
    ended.abort();
    await done;
  });

  it('are not harmed: one that greets can say what it has to say', async () => {
    const errors: string[] = [];
    let greeted = 0;
    const server = createServer((socket) => {
      socket.on('error', (error) => errors.push(error.message)).resume();
      socket.write(Buffer.alloc(100_000), () => (greeted += 1));
      setTimeout(() => socket.write('and more'), 20);
    });
    server.listen(0, '127.0.0.1');
    servers.push(server);
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const signal = new AbortController().signal;
    for (let time = 0; time < 10; time += 1) assert.equal(await reach('127.0.0.1', port, signal), true);
    await until('all were greeted', 5_000, () => (greeted === 10 ? true : undefined));
    await sleep(100);
    assert.deepEqual(errors, []);
    const closed = await closedPort();
    assert.equal(await reach('127.0.0.1', closed, signal), false);
  });
});
