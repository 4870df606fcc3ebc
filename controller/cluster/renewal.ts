import { X509Certificate } from 'node:crypto';
import type { NodeIdentity } from '../model/identity.ts';
import { issueCertificate, needsRenewal } from './ca.ts';
import { saveCertificate } from './files.ts';

/**
 * Gives the node a new certificate when less than a third of the old one's time is left, or it is of a clock that was ahead, for the same
 * key; null: nothing to do yet. To be called every few minutes, and its answer given to the peer server and client.
 */
export async function renewCertificate(
  folder: string,
  identity: NodeIdentity,
  nowMs: number,
): Promise<NodeIdentity | null> {
  // By a clock that is behind (no battery, no time server yet) each certificate looks like that, and one that it issues is over once it is right.
  if (nowMs < new X509Certificate(identity.caCertificate).validFromDate.getTime()) return null;
  if (!needsRenewal(identity.certificate, nowMs)) return null;
  const authority = { certificate: identity.caCertificate, key: identity.caKey };
  const certificate = issueCertificate(authority, identity, identity.key, nowMs);
  await saveCertificate(folder, certificate);
  return { ...identity, certificate };
}
