import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { get } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { text } from 'node:stream/consumers';
import { waitUntil } from './daemon.ts';
import type { Docker } from './docker.ts';
import { ensureImage, image } from './proof.ts';

const answerMsMax = 15_000;
const requestMsMax = 2_000;

/** Whether the program on this host that answers there says that it is well. */
export async function isHealthy(port: number): Promise<boolean> {
  return (await ask(port, '/healthz', 'localhost'))?.status === 200;
}

/** A container whose labels ask for a route is reached through it, and goes without a trace. Throws if it is not. */
export async function proveProxy(docker: Docker): Promise<string> {
  await ensureImage(docker);
  const name = `flock-proof-${randomBytes(4).toString('hex')}`;
  const host = `${name}.test`;
  const port = await freePort();
  const route = `http://${host}:${port} -> 8080`;
  const startMs = performance.now();
  try {
    const labels = ['--label', `flock.service=${name}`, '--label', `flock.route=${route}`];
    const script = 'mkdir /www && echo "$1" > /www/index.html && exec httpd -f -p 8080 -h /www';
    await docker.run(['run', '-d', '--name', name, ...labels, image, 'sh', '-c', script, 'sh', name]);
    let last: Answer | null = null;
    const isAnswered = async () => {
      last = await ask(port, '/', host);
      return last?.status === 200 && last.body === `${name}\n`;
    };
    if (!(await waitUntil(isAnswered, answerMsMax)))
      throw new Error(
        `a container with the label flock.route=${route} is not reached after ${answerMsMax / 1000} s: ${describe(last)}. "docker logs flock-proxy" and "flockctl route ls" say why`,
      );
  } finally {
    await docker.run(['rm', '-f', name]);
  }
  const ms = Math.round(performance.now() - startMs);
  return `a container with a label flock.route was reached at port ${port} of this host; removed (${ms} ms)`;
}

type Answer = { readonly status: number; readonly body: string };

function describe(answer: Answer | null): string {
  return answer === null ? 'no answer' : `status ${answer.status}`;
}

/** Null when nothing answers. */
async function ask(port: number, path: string, host: string): Promise<Answer | null> {
  try {
    const signal = AbortSignal.timeout(requestMsMax);
    const request = get({ host: '127.0.0.1', port, path, headers: { host }, agent: false, signal });
    const [response] = await once(request, 'response');
    return { status: response.statusCode, body: await text(response) };
  } catch {
    return null;
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
