import { Agent } from 'node:http';
import { connect, type NetConnectOpts, type Socket } from 'node:net';
import type { Backend } from './backends.ts';
import type { GateLimits } from './limits.ts';

type Hooks = {
  createConnection(options: NetConnectOpts): Socket;
  keepSocketAlive(socket: Socket): boolean;
  reuseSocket(socket: Socket, request: unknown): void;
};

const agents = new WeakMap<Backend, Agent>();

/** The idle connections to a backend. They are closed when it leaves the table; those in use are not. */
export function keepAgent(backend: Backend, limits: GateLimits): Agent {
  const known = agents.get(backend);
  if (known !== undefined) return known;
  const agent = new Agent({
    keepAlive: true,
    maxFreeSockets: limits.serviceIdleMax,
    scheduling: 'lifo',
    timeout: limits.serviceSilenceMsMax,
  });
  let isRetired = false;
  const hooks = agent as unknown as Hooks;
  const { keepSocketAlive, reuseSocket } = hooks;
  // Node documents all three for being replaced; its types leave them out.
  hooks.createConnection = (options) => connectWithin(limits.connectMsMax, options);
  hooks.keepSocketAlive = (socket) => {
    if (isRetired || !keepSocketAlive.call(agent, socket)) return false;
    // The service may have announced less.
    if (!(socket.timeout !== undefined && socket.timeout > 0 && socket.timeout < limits.serviceIdleMsMax))
      socket.setTimeout(limits.serviceIdleMsMax);
    return true;
  };
  hooks.reuseSocket = (socket, request) => {
    socket.setTimeout(limits.serviceSilenceMsMax);
    reuseSocket.call(agent, socket, request);
  };
  backend.retire = () => {
    isRetired = true;
    for (const sockets of Object.values(agent.freeSockets)) for (const socket of sockets ?? []) socket.destroy();
  };
  agents.set(backend, agent);
  return agent;
}

/** An agent for one request over a connection that is there already. */
export function agentOver(socket: Socket): Agent {
  const agent = new Agent({ keepAlive: false });
  (agent as unknown as Hooks).createConnection = () => socket;
  return agent;
}

/** An agent for one request over a connection of its own. */
export function freshAgent(limits: GateLimits): Agent {
  const agent = new Agent({ keepAlive: false, timeout: limits.serviceSilenceMsMax });
  (agent as unknown as Hooks).createConnection = (options) => connectWithin(limits.connectMsMax, options);
  return agent;
}

/** Connects, or fails like the kernel does, only earlier: that alone takes two minutes to give up a host that is gone. */
export function connectWithin(limitMs: number, options: NetConnectOpts): Socket {
  const socket = connect({ ...options, noDelay: true });
  const timer = setTimeout(() => {
    const facts = { code: 'ETIMEDOUT', syscall: 'connect' };
    socket.destroy(Object.assign(new Error(`no connection within ${limitMs} ms`), facts));
  }, limitMs);
  const stop = () => clearTimeout(timer);
  return socket.once('connect', stop).once('close', stop);
}
