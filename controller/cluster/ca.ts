import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto';
import { isIP, isIPv6 } from 'node:net';
import { nodeDnsName } from '../model/identity.ts';
import type { NodeName } from '../model/names.ts';
import {
  bitString,
  boolean,
  explicit,
  implicit,
  integer,
  octetString,
  oid,
  sequence,
  setOf,
  time,
  utf8,
} from './der.ts';

/**
 * The cluster's certificate authority. Every node has its key, so each issues and renews its own certificate; a node's private key
 * never travels. ECDSA on P-256 throughout. Certificates are only written here; OpenSSL reads and checks them.
 */
export type Authority = {
  /** PEM. */
  readonly certificate: string;
  /** PEM, PKCS #8. */
  readonly key: string;
};

export type NodeSubject = {
  readonly clusterId: string;
  readonly name: NodeName;
  /** IP address or host name. */
  readonly address: string;
};

const dayMs = 24 * 3600 * 1000;
const authorityMs = 3652 * dayMs;
const certificateMs = 365 * dayMs;
/** A node whose clock is behind by less than this takes a certificate that was issued just now. */
const skewMs = dayMs;

const oids = {
  commonName: '2.5.4.3',
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
} as const;

/** The bits of keyUsage, the first one leftmost: digitalSignature is bit 0, keyCertSign 5, cRLSign 6. */
const usages = { node: bitString(Buffer.from([0b1000_0000]), 7), authority: bitString(Buffer.from([0b0000_0110]), 1) };

export function makeAuthority(clusterId: string, nowMs: number): Authority {
  const key = makeKey();
  const publicKey = createPublicKey(key);
  const subject = authorityName(clusterId);
  const certificate = signed(createPrivateKey(key), {
    issuer: subject,
    subject,
    publicKey,
    fromMs: nowMs - skewMs,
    toMs: nowMs + authorityMs,
    extensions: [
      // It signs nodes only, no further authorities.
      extension(oids.basicConstraints, true, sequence(boolean(true), integer(Buffer.from([0])))),
      extension(oids.keyUsage, true, usages.authority),
      extension(oids.subjectKeyIdentifier, false, octetString(keyId(publicKey))),
    ],
  });
  return { certificate, key };
}

/** A new private key as PEM. */
export function makeKey(): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
}

/** The certificate (PEM) of a node for its key (PEM). */
export function issueCertificate(authority: Authority, node: NodeSubject, key: string, nowMs: number): string {
  const publicKey = createPublicKey(key);
  const alternatives = [implicit(2, Buffer.from(node.name)), implicit(2, Buffer.from(nodeDnsName(node)))];
  if (isIP(node.address) !== 0) alternatives.push(implicit(7, addressBytes(node.address)));
  else if (node.address !== node.name) alternatives.push(implicit(2, Buffer.from(node.address)));
  return signed(createPrivateKey(authority.key), {
    issuer: authorityName(node.clusterId),
    subject: commonName(node.name),
    publicKey,
    fromMs: nowMs - skewMs,
    toMs: Math.min(nowMs + certificateMs, new X509Certificate(authority.certificate).validToDate.getTime()),
    extensions: [
      extension(oids.basicConstraints, true, sequence()),
      extension(oids.keyUsage, true, usages.node),
      extension(oids.extendedKeyUsage, false, sequence(oid(oids.serverAuth), oid(oids.clientAuth))),
      extension(oids.subjectAltName, false, sequence(...alternatives)),
      extension(
        oids.authorityKeyIdentifier,
        false,
        sequence(implicit(0, keyId(createPublicKey(authority.certificate)))),
      ),
    ],
  });
}

/**
 * Less than a third of its time is left; or it is not valid yet: it was issued while the clock was ahead, as before the first answer of a
 * time server, and no other node would take it for as long as that.
 */
export function needsRenewal(certificate: string, nowMs: number): boolean {
  const { validFromDate, validToDate } = new X509Certificate(certificate);
  if (validFromDate.getTime() > nowMs) return true;
  return validToDate.getTime() - nowMs < (validToDate.getTime() - validFromDate.getTime()) / 3;
}

/** SHA-256 of a certificate, hex. */
export function fingerprintOf(certificate: string): string {
  return createHash('sha256').update(new X509Certificate(certificate).raw).digest('hex');
}

/** SHA-256 of the public half of a private key, hex. */
export function keyFingerprintOf(key: string): string {
  return createHash('sha256')
    .update(publicBytes(createPublicKey(key)))
    .digest('hex');
}

export function isKeyOf(certificate: string, key: string): boolean {
  return new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key));
}

type Unsigned = {
  readonly issuer: Buffer;
  readonly subject: Buffer;
  readonly publicKey: KeyObject;
  readonly fromMs: number;
  readonly toMs: number;
  readonly extensions: readonly Buffer[];
};

/** RFC 5280 section 4.1. */
function signed(key: KeyObject, unsigned: Unsigned): string {
  const algorithm = sequence(oid(oids.ecdsaWithSha256));
  const version3 = explicit(0, integer(Buffer.from([2])));
  const body = sequence(
    version3,
    integer(randomBytes(16)),
    algorithm,
    unsigned.issuer,
    sequence(time(unsigned.fromMs), time(unsigned.toMs)),
    unsigned.subject,
    publicBytes(unsigned.publicKey),
    explicit(3, sequence(...unsigned.extensions)),
  );
  const certificate = sequence(body, algorithm, bitString(sign('sha256', body, key)));
  return new X509Certificate(certificate).toString();
}

function extension(id: string, critical: boolean, value: Buffer): Buffer {
  return sequence(oid(id), ...(critical ? [boolean(true)] : []), octetString(value));
}

function authorityName(clusterId: string): Buffer {
  return commonName(`flock ${clusterId}`);
}

function commonName(text: string): Buffer {
  return sequence(setOf(sequence(oid(oids.commonName), utf8(text))));
}

function publicBytes(key: KeyObject): Buffer {
  return key.export({ type: 'spki', format: 'der' });
}

/** Any digest of the key will do (RFC 5280 section 4.2.1.2). */
function keyId(key: KeyObject): Buffer {
  return createHash('sha256').update(publicBytes(key)).digest().subarray(0, 20);
}

function addressBytes(address: string): Buffer {
  if (!isIPv6(address)) return Buffer.from(address.split('.').map(Number));
  // The URL parser writes every IPv6 address in groups of hex digits, also those with an IPv4 tail.
  const [head = '', tail] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::');
  const groups = (text: string | undefined) => (text === undefined || text === '' ? [] : text.split(':'));
  const [before, after] = [groups(head), groups(tail)];
  const zeros: readonly string[] = Array.from({ length: 8 - before.length - after.length }, () => '0');
  return Buffer.from([...before, ...zeros, ...after].map((group) => group.padStart(4, '0')).join(''), 'hex');
}
