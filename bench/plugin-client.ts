import { request } from 'node:http';
import type { PluginHost } from '../test/support/plugin-host.ts';

/** Calls the plugin as Docker does: a new connection for each call, no content type. Throws what the answer calls an error. */
export type PluginClient = {
  call(name: Call, body?: Readonly<Record<string, unknown>>): Promise<Readonly<Record<string, unknown>>>;
};

export type Call = 'Create' | 'Remove' | 'Mount' | 'Unmount' | 'Get' | 'List' | 'Capabilities';

export async function connect(flock: PluginHost): Promise<PluginClient> {
  // By way of the plugin's own root: below the host's the path would be longer than a socket's may be.
  const socketPath = `/proc/${await flock.pluginPid()}/root/run/docker/plugins/flock.sock`;
  return {
    async call(name, body = {}) {
      const answer = JSON.parse(await post(socketPath, `/VolumeDriver.${name}`, JSON.stringify(body))) as {
        readonly Err?: string;
      };
      if (answer.Err !== undefined && answer.Err !== '') throw new Error(`${name}: ${answer.Err}`);
      return answer;
    },
  };
}

function post(socketPath: string, path: string, body: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, path, method: 'POST', agent: false }, (response) => {
      let text = '';
      response
        .setEncoding('utf8')
        .on('data', (part: string) => {
          text += part;
        })
        .on('end', () => resolve(text))
        .on('error', reject);
    });
    sent.on('error', reject).end(body);
  });
}

/** Volumes `many0`, `many1` ... so that there are this many. */
export async function ensureVolumes(client: PluginClient, count: number): Promise<void> {
  const atOnce = 6;
  let next = 0;
  const work = async () => {
    while (next < count) {
      const Name = `many${next}`;
      next += 1;
      await client.call('Create', { Name, Opts: null });
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
}
