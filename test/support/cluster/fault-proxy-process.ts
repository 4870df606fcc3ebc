/**
 * `fault-proxy-process.ts LISTEN_PORT SERVICE_PORT`: a TCP proxy to a port of its own host that breaks connections on demand. Reads
 * FaultMode lines from stdin, the last one counts for connections that begin after it; answers each with a line of ProxyCounts, and
 * "?" too.
 */
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { createProxy } from 'node-tcp-proxy';
import type { FaultMode, ProxyCounts } from './fault-proxy.ts';

type Connection = { readonly mode: FaultMode; bytes: number; readonly twin: Socket | null };

/** What node-tcp-proxy hands to its interceptors. */
type Context = { readonly proxySocket: Socket; serviceSocket?: Socket; connected: boolean; buffers: Buffer[] };

const [listenPort, servicePort] = process.argv.slice(2).map(Number);
if (listenPort === undefined || servicePort === undefined)
  throw new Error('usage: fault-proxy LISTEN_PORT SERVICE_PORT');

const service = '127.0.0.1';
const counts = { connections: 0, cut: 0, corrupted: 0, duplicated: 0 };
const connections = new WeakMap<object, Connection>();
let mode: FaultMode = { kind: 'pass' };

// Its types know nothing of promises and contexts as they are.
createProxy(listenPort, service, servicePort, { upstream: toService as never, downstream: toCaller as never });

async function toService(context: Context, data: Buffer): Promise<Buffer> {
  const connection = connections.get(context) ?? begin(context);
  const from = connection.bytes;
  connection.bytes += data.length;
  connection.twin?.write(data);
  const { mode: fault } = connection;
  // Only streams get so far: calls are short.
  const isNow = 'afterBytes' in fault && from <= fault.afterBytes && connection.bytes > fault.afterBytes;
  if (fault.kind === 'cut' && isNow) {
    counts.cut += 1;
    context.proxySocket.destroy();
  }
  if (fault.kind === 'corrupt' && isNow) {
    counts.corrupted += 1;
    const at = fault.afterBytes - from;
    data[at] = (data[at] ?? 0) ^ 0x01;
  }
  if (fault.kind === 'delay') await sleep(fault.ms);
  return data;
}

async function toCaller(context: Context, data: Buffer): Promise<Buffer> {
  const fault = connections.get(context)?.mode;
  if (fault?.kind === 'delay') await sleep(fault.ms);
  return data;
}

function begin(context: Context): Connection {
  counts.connections += 1;
  mendHalfOpen(context);
  let twin: Socket | null = null;
  if (mode.kind === 'duplicate') {
    counts.duplicated += 1;
    twin = connect(servicePort ?? 0, service);
    // Its answers are nobody's.
    twin.on('error', () => undefined).resume();
    context.proxySocket.once('close', () => twin?.destroy());
  }
  const made: Connection = { mode, bytes: 0, twin };
  connections.set(context, made);
  return made;
}

/** node-tcp-proxy ends both directions when the caller has ended its own, and the answer is lost: no fault that was asked for. */
function mendHalfOpen(context: Context): void {
  const { proxySocket } = context;
  proxySocket.allowHalfOpen = true;
  proxySocket.once('end', () => void endService(context));
}

async function endService(context: Context): Promise<void> {
  // What was read last is passed on first, also where it is delayed or the service is only being dialled.
  const fault = connections.get(context)?.mode;
  if (fault?.kind === 'delay') await sleep(2 * fault.ms);
  await sleep(50);
  context.serviceSocket?.end();
}

createInterface({ input: process.stdin }).on('line', (line) => {
  if (line !== '?') mode = JSON.parse(line) as FaultMode;
  const told: ProxyCounts = { ...counts };
  console.log(JSON.stringify(told));
});
