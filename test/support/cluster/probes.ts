import { readFile } from 'node:fs/promises';
import type { ClusterHost } from './cluster-host.ts';

/** What can be seen of hosts and cables from outside of flock. */

const probeMs = 3_000;
const port = 9_000;

/** Whether one host can open a connection to another's port, which takes both directions. */
export async function connects(from: ClusterHost, to: ClusterHost, toPort: number): Promise<boolean> {
  const script = `exec 3<>/dev/tcp/${to.address}/${toPort}`;
  const limit = String(probeMs / 1000);
  return await from.host.run('timeout', [limit, 'bash', '-c', script]).then(
    () => true,
    () => false,
  );
}

/** Whether single packets of one host arrive at another, which needs no way back. */
export async function arrives(from: ClusterHost, to: ClusterHost): Promise<boolean> {
  const listener = `
    const socket = require('node:dgram').createSocket('udp4');
    socket.once('message', () => { console.log('arrived'); process.exit(); });
    socket.bind(${port});
    setTimeout(() => process.exit(), ${probeMs});`;
  const heard = to.host.run(process.execPath, ['-e', listener]).then((text) => text === 'arrived');
  // In silence, and from before the listener hears until after it has given up.
  const sender = `for i in $(seq 40); do echo x >/dev/udp/${to.address}/${port}; sleep 0.1; done`;
  const sent = from.host.run('bash', ['-c', `{ ${sender}; } 2>/dev/null`]);
  const answer = await heard;
  await sent.catch(() => {});
  return answer;
}

/** The share of packets that get lost on the way from one host to another and back, in percent. */
export async function lossPercent(from: ClusterHost, to: ClusterHost, packets: number): Promise<number> {
  const echo = `require('node:dgram').createSocket('udp4').on('message', function (text, peer) {
    this.send(text, peer.port, peer.address);
  }).bind(${port}); setTimeout(() => process.exit(), ${probeMs});`;
  const sender = `
    const socket = require('node:dgram').createSocket('udp4');
    let back = 0, sent = 0;
    socket.on('message', () => { back += 1; });
    setTimeout(() => setInterval(() => {
      if (sent < ${packets}) { sent += 1; socket.send('x', ${port}, '${to.address}'); }
    }, 2), ${probeMs / 3});
    setTimeout(() => { console.log(back); process.exit(); }, ${probeMs});`;
  const echoed = to.host.run(process.execPath, ['-e', echo]);
  const back = Number(await from.host.run(process.execPath, ['-e', sender]));
  await echoed;
  return 100 - (back / packets) * 100;
}

/** The boot clock, which containers of all hosts show too. */
export async function bootSeconds(): Promise<number> {
  return Number((await readFile('/proc/uptime', 'utf8')).split(' ')[0]);
}
