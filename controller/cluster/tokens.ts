import { createHash, randomBytes } from 'node:crypto';
import { keys } from '../model/cluster.ts';
import { FlockError } from '../model/errors.ts';
import { decodeToken, type TokenDoc } from '../model/identity.ts';
import type { NodeName } from '../model/names.ts';
import type { Operation, Store } from '../store/store.ts';
import { fingerprintOf } from './ca.ts';
import { listBelow } from './entries.ts';

/**
 * Join tokens: `flock1-` and 48 bytes as base64url, which are a secret that the cluster asks for and the fingerprint of the
 * cluster's certificate, by which the joining host knows that it talks to the right cluster. The store has only the secret's hash.
 */
export type JoinToken = { readonly secret: string; readonly caFingerprint: string };

const prefix = 'flock1-';
const secretBytes = 16;
const fingerprintBytes = 32;
export const tokenTtlMsDefault = 3600 * 1000;
const tokenTtlMsMin = 60 * 1000;
const tokenTtlMsMax = 7 * 24 * 3600 * 1000;
const usesMax = 100;
/** Each repetition means that somebody else has changed the token meanwhile. */
const attemptsMax = 2 * usesMax;

export function formatToken({ secret, caFingerprint }: JoinToken): string {
  return prefix + Buffer.from(secret + caFingerprint, 'hex').toString('base64url');
}

export function parseToken(text: string): JoinToken {
  const bytes = Buffer.from(text.slice(prefix.length), 'base64url');
  const hex = bytes.toString('hex');
  const token = { secret: hex.slice(0, secretBytes * 2), caFingerprint: hex.slice(secretBytes * 2) };
  // Written back, because the base64 reader passes over whatever it does not know.
  if (bytes.length === secretBytes + fingerprintBytes && formatToken(token) === text) return token;
  throw new FlockError(
    'token-invalid',
    `this is no join token: it is to start with ${prefix} and to have ${prefix.length + ((secretBytes + fingerprintBytes) * 4) / 3} characters, as "flockctl token create" printed it`,
  );
}

export async function createToken(
  store: Store,
  caCertificate: string,
  request: { readonly uses: number; readonly ttlMs: number },
  nowMs: number,
): Promise<{ readonly text: string; readonly doc: TokenDoc }> {
  const { uses, ttlMs } = request;
  if (!Number.isInteger(uses) || uses < 1 || uses > usesMax)
    throw new FlockError('invalid-option', `a token has 1 to ${usesMax} uses, not ${uses}`);
  if (ttlMs < tokenTtlMsMin || ttlMs > tokenTtlMsMax)
    throw new FlockError('invalid-option', 'a token is valid for 1m to 7d');
  await sweepTokens(store, nowMs);
  const secret = randomBytes(secretBytes).toString('hex');
  const doc: TokenDoc = { createdAtMs: nowMs, expiresAtMs: nowMs + ttlMs, usesLeft: uses, usedBy: [] };
  const key = keys.token(hashOf(secret));
  await store.transact([{ kind: 'compare-and-set', key, value: JSON.stringify(doc), index: null }]);
  return { text: formatToken({ secret, caFingerprint: fingerprintOf(caCertificate) }), doc };
}

export type Use = {
  readonly secret: string;
  readonly node: NodeName;
  /** Of the node's own key: the same node may ask again, another one of its name may not. */
  readonly keyFingerprint: string;
};

/**
 * Takes one use of the token and does what goes with it in the same transaction. `others` answers those operations, from fresh reads,
 * each time it is tried; a conflict in them is tried again. `repeated`: this very node has used it already, nothing was done.
 */
export async function useToken(
  store: Store,
  use: Use,
  nowMs: number,
  others: () => Promise<readonly Operation[]>,
): Promise<'used' | 'repeated'> {
  const key = keys.token(hashOf(use.secret));
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    const entry = await store.get(key, { fresh: true });
    if (entry === null) throw refused('is not known to this cluster, or has expired');
    const doc = decodeToken(entry.value);
    if (doc.expiresAtMs <= nowMs) throw refused('has expired');
    if (doc.usedBy.some(({ node, keyFingerprint }) => node === use.node && keyFingerprint === use.keyFingerprint))
      return 'repeated';
    if (doc.usesLeft === 0) throw refused('is used up');
    const value = JSON.stringify({
      ...doc,
      usesLeft: doc.usesLeft - 1,
      usedBy: [...doc.usedBy, { node: use.node, keyFingerprint: use.keyFingerprint }],
    } satisfies TokenDoc);
    const operations = await others();
    const outcome = await store.transact([{ kind: 'compare-and-set', key, value, index: entry.index }, ...operations]);
    if (outcome.kind === 'done') return 'used';
  }
  throw new FlockError('store-unavailable', 'too many nodes use this join token at once: try again');
}

/** Removes what has expired. */
async function sweepTokens(store: Store, nowMs: number): Promise<void> {
  const entries = await listBelow(store, keys.tokens);
  const expired = entries.filter((entry) => decodeToken(entry.value).expiresAtMs <= nowMs);
  // One by one: a conflict with another sweep may keep one of them, not all.
  for (const { key, index } of expired) await store.transact([{ kind: 'compare-and-delete', key, index }]);
}

/** Key of the token in the store. A plain hash is enough for a secret of 128 random bits. */
function hashOf(secret: string): string {
  return createHash('sha256').update(Buffer.from(secret, 'hex')).digest('hex');
}

export function refused(what: string): FlockError {
  return new FlockError(
    'token-invalid',
    `the join token ${what}: "flockctl token create" on any node of the cluster makes a new one`,
  );
}
