import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { createListening, type Listening } from '../../proxy/documents/listening.ts';
import { type ContainerDoc, inspectedSchema, readContainer } from '../../proxy/model/containers.ts';
import { parseServiceName } from '../../proxy/model/names.ts';
import { dockerAnswer, here, idOf } from '../support/proxy-fakes.ts';
import { until } from '../support/until.ts';

const web = parseServiceName('web');
const second = (at: number) => ({ Status: 'running', Pid: 1, StartedAt: new Date(at).toISOString() });

describe('containers that take connections', () => {
  const servers: Server[] = [];
  let listening: Listening;
  let changes: number;
  let now: number;
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
    now = 1_000_000;
    const onChange = () => {
      changes += 1;
    };
    listening = createListening({ onChange, nowMs: () => now });
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
    const first = second(now);
    assert.equal(judged(first, [open, late]), 'starting');
    await sleep(300);
    assert.equal(judged(first, [open, late]), 'starting');
    assert.equal(changes, 0);
    await listen(late);
    await until('the change is told', 5_000, () => (changes === 1 ? true : undefined));
    assert.equal(judged(first, [open, late]), 'healthy');
    servers.pop()?.close();
    assert.equal(judged(first, [open, late, 1]), 'healthy', 'a port that nobody asked for at first changes nothing');
    assert.equal(judged(second(now + 1_000), [open, late]), 'starting');
  });

  it('are asked about at all ports for half a minute; one that takes them is enough then', async () => {
    const [open, closed] = [await listen(), await closedPort()];
    const state = second(now);
    assert.equal(judged(state, [open, closed]), 'starting');
    now += 29_999;
    await sleep(200);
    assert.equal(judged(state, [open, closed]), 'starting');
    now += 1;
    await until('it is healthy', 5_000, isHealthy(state, [open, closed]));
    now += 1;
    const other = second(now);
    assert.equal(judged(other, [closed]), 'starting');
    now += 60_000;
    await sleep(200);
    assert.equal(judged(other, [closed]), 'starting', 'none does');
  });

  it('are not asked: with a health check, without ports, while they do not run, or known from before', async () => {
    const closed = await closedPort();
    const state = second(now);
    assert.equal(judged({ ...state, Health: { Status: 'healthy' } }, [closed]), 'healthy');
    assert.equal(judged({ ...state, Health: { Status: 'unhealthy' } }, [closed]), 'not healthy');
    assert.equal(judged(state, []), 'healthy');
    assert.equal(judged({ ...state, Status: 'exited', Pid: 0 }, [closed]), 'not healthy');
    const { facts } = container(state);
    const before = { ...facts, node: here, inner: { address: '127.0.0.1', ports: {} }, linkPorts: {} };
    assert.equal(judged(state, [closed], [before]), 'healthy');
    const again = second(now + 1_000);
    assert.equal(judged(again, [closed], [before]), 'starting', 'it has been started anew since');
    assert.equal(judged(second(now + 2_000), [closed], [{ ...before, healthy: false, starting: true }]), 'starting');
    await sleep(200);
    assert.equal(changes, 0);
  });
});
