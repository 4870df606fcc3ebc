import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { HostName } from '../test/contract/proxy-kernel-net.ts';
import { type Ground, type Part, processors } from './proxy-ground.ts';

/** A service that costs little and closes connections when it is asked to: nginx, which answers by itself. */
export async function startAnswering(ground: Ground, host: HostName, port: number): Promise<Part> {
  const http = `access_log off; server { listen ${port} backlog=4096; location / { return 200 x; } }`;
  const args = await nginxWith(ground, `answering-${host}`, http);
  return ground.program({ host, processor: processors.others }, port, ['nginx', ...args]);
}

/** Writes a configuration with one worker and answers nginx's arguments. */
export async function nginxWith(ground: Ground, name: string, http: string): Promise<readonly string[]> {
  const lines = [
    ...['daemon off;', 'worker_processes 1;', 'error_log stderr;', `pid ${join(ground.folder, `${name}.pid`)};`],
    'events { worker_connections 8192; }',
    `http { ${http} }`,
  ];
  const file = join(ground.folder, `${name}.conf`);
  await writeFile(file, lines.join('\n'));
  return ['-c', file, '-p', ground.folder];
}

/** Writes HAProxy's smallest configuration: from a port to a server. Answers its arguments. */
export async function haproxyWith(
  ground: Ground,
  mode: 'http' | 'tcp',
  at: { readonly bind: string; readonly server: string },
): Promise<readonly string[]> {
  const lines = [
    ...['defaults', `mode ${mode}`, 'timeout connect 5s', 'timeout client 60s', 'timeout server 60s'],
    ...['listen bare', `bind ${at.bind} backlog 4096`, `server service ${at.server}`],
  ];
  const file = join(ground.folder, `bare-${mode}-${at.bind.replace(/\W/g, '-')}.cfg`);
  await writeFile(file, `${lines.join('\n')}\n`);
  return ['-db', '-f', file];
}
