import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { FlockError, messageOf } from '../model/errors.ts';
import type { NodeIdentity } from '../model/identity.ts';
import { parseNodeName } from '../model/names.ts';
import { replacePrivateFile, syncFolder } from '../private-file.ts';
import { type Authority, isKeyOf } from './ca.ts';

/**
 * What a node keeps of its membership, in a folder of its own that only root can read. `node.json` is written last and removed
 * first: a node is in a cluster if and only if it is there. `founding.json` is the authority of a cluster that is just being made.
 */
const names = {
  node: 'node.json',
  caCertificate: 'ca.crt',
  caKey: 'ca.key',
  certificate: 'node.crt',
  key: 'node.key',
  founding: 'founding.json',
} as const;

const nodeSchema = z.object({
  clusterId: z.string(),
  name: z.string().transform(parseNodeName),
  address: z.string(),
  port: z.int().positive(),
  storeAddress: z.string(),
  storeToken: z.string().nullable(),
});

const foundingSchema = z.object({ clusterId: z.string(), certificate: z.string(), key: z.string() });
export type Founding = Authority & { readonly clusterId: string };

/** null: this host is in no cluster. Throws `not-ready` where files are damaged or missing: that must not look like no cluster. */
export async function loadIdentity(folder: string): Promise<NodeIdentity | null> {
  const nodeText = await readIfThere(join(folder, names.node));
  if (nodeText === null) return null;
  try {
    const node = nodeSchema.parse(JSON.parse(nodeText));
    const [caCertificate, caKey, certificate, key] = await Promise.all(
      [names.caCertificate, names.caKey, names.certificate, names.key].map((name) =>
        readFile(join(folder, name), 'utf8'),
      ),
    );
    if (caCertificate === undefined || caKey === undefined || certificate === undefined || key === undefined)
      throw new Error('a file is missing');
    if (!isKeyOf(caCertificate, caKey)) throw new Error(`${names.caKey} is not the key of ${names.caCertificate}`);
    if (!isKeyOf(certificate, key)) throw new Error(`${names.key} is not the key of ${names.certificate}`);
    return { ...node, caCertificate, caKey, certificate, key };
  } catch (error) {
    throw new FlockError(
      'not-ready',
      `this node's membership in its cluster can't be read from ${folder}: ${messageOf(error)}. Restore the folder from a backup, or remove it and have the node join again`,
      {},
      { cause: error },
    );
  }
}

export async function saveIdentity(folder: string, identity: NodeIdentity): Promise<void> {
  const { caCertificate, caKey, certificate, key, ...node } = identity;
  await rm(join(folder, names.node), { force: true });
  await replacePrivateFile(join(folder, names.caKey), caKey);
  await replacePrivateFile(join(folder, names.caCertificate), caCertificate);
  await replacePrivateFile(join(folder, names.key), key);
  await replacePrivateFile(join(folder, names.certificate), certificate);
  await replacePrivateFile(join(folder, names.node), `${JSON.stringify(node, null, 2)}\n`);
  await rm(join(folder, names.founding), { force: true });
}

/** After a renewal, which leaves the key as it is, so that no two files have to change at once. */
export async function saveCertificate(folder: string, certificate: string): Promise<void> {
  await replacePrivateFile(join(folder, names.certificate), certificate);
}

/** For a node that was removed from its cluster. */
export async function forgetIdentity(folder: string): Promise<void> {
  for (const name of Object.values(names)) {
    await rm(join(folder, name), { force: true });
    if (name === names.node) await syncFolder(folder);
  }
}

/** The key that a join has begun with, kept so that its repetition is known for one. Made by the first call. */
export async function joiningKey(folder: string, make: () => string): Promise<string> {
  const present = await readIfThere(join(folder, names.key));
  if (present !== null) return present;
  const key = make();
  await replacePrivateFile(join(folder, names.key), key);
  return key;
}

/** The authority of a cluster that this node has begun to make. Made by the first call, and the same until saveIdentity. */
export async function foundingAuthority(folder: string, make: () => Founding): Promise<Founding> {
  const present = await readIfThere(join(folder, names.founding));
  if (present !== null) return foundingSchema.parse(JSON.parse(present));
  const founding = make();
  await replacePrivateFile(join(folder, names.founding), JSON.stringify(founding));
  return founding;
}

async function readIfThere(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw error;
  }
}
