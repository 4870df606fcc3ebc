import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { type NodeName, parseNodeName } from '../controller/model/names.ts';
import { parseProblemOf } from '../controller/model/shape.ts';
import { replacePrivateFile } from '../controller/private-file.ts';
import type { Documents } from './model/collect.ts';
import { containerSchema } from './model/containers.ts';
import { proxyNodeSchema, serviceSettingsSchema, storedCertificateSchema, storedLinkSchema } from './model/keys.ts';
import { routeSchema } from './model/records.ts';

/**
 * What the last table was made of, in a file that only root can read (there are keys of certificates in it): a start without a store
 * serves that.
 */
export type Saved = {
  readonly generation: number;
  /** This node at that time. */
  readonly self: NodeName;
  /** Of the cluster; null: the host was in none. */
  readonly clusterId: string | null;
  /** Of the host, when Docker said last what this node has; null: not known. */
  readonly bootId: string | null;
  readonly documents: Documents;
};

const nodeName = z.string().transform(parseNodeName);

const savedSchema = z.object({
  generation: z.int().nonnegative(),
  self: nodeName,
  clusterId: z.string().nullable(),
  // Older proxies do not say it.
  bootId: z.string().nullable().default(null),
  documents: z.object({
    containers: z.array(containerSchema),
    nodes: z.array(proxyNodeSchema),
    routes: z.array(routeSchema),
    links: z.array(storedLinkSchema),
    services: z.array(serviceSettingsSchema),
    certificates: z.array(storedCertificateSchema),
    members: z
      .array(
        z.tuple([
          nodeName,
          z.object({ alive: z.boolean(), poolLost: z.boolean().optional(), reached: z.boolean().optional() }),
        ]),
      )
      .nullable(),
  }),
});

/** Null: there is none. `problem`: there is one that can't be used, and why. */
export async function readSaved(path: string): Promise<Saved | null | { readonly problem: string }> {
  try {
    const { documents, ...rest } = savedSchema.parse(JSON.parse(await readFile(path, 'utf8')));
    const { members } = documents;
    return { ...rest, documents: { ...documents, members: members === null ? null : new Map(members) } };
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    return { problem: `${path} can't be read: ${parseProblemOf(error)}` };
  }
}

/** Beside, then renamed, both on the disk before it returns. Calls must not overlap. */
export async function writeSaved(path: string, { documents, ...rest }: Saved): Promise<void> {
  const { members } = documents;
  const text = JSON.stringify({
    ...rest,
    documents: { ...documents, members: members === null ? null : [...members] },
  });
  await replacePrivateFile(path, text);
}
