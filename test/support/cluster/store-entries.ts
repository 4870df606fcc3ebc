import { z } from 'zod';
import type { Cluster } from './cluster.ts';

export type StoredEntry = { readonly value: string; readonly session: string | null };

const entriesSchema = z.array(z.object({ Value: z.string(), Session: z.string().optional() }));

/** What the store has below one of flock's keys, asked of the first host whose Consul answers. */
export async function entriesBelow({ hosts }: Pick<Cluster, 'hosts'>, key: string): Promise<readonly StoredEntry[]> {
  for (const host of hosts) {
    const answer = await host
      .consulApi('GET', `/v1/kv/flock/${key}?recurse&consistent`)
      .catch((error: unknown) => (String(error).includes('status 404') ? [] : null));
    if (answer !== null)
      return entriesSchema.parse(answer).map(({ Value, Session }) => ({
        value: Buffer.from(Value, 'base64').toString('utf8'),
        session: Session ?? null,
      }));
  }
  throw new Error('no Consul server answers');
}
