import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { FlockError, messageOf } from '../../controller/model/errors.ts';

/** What a certificate says of itself. */
export type CertificateFacts = {
  readonly covers: readonly string[];
  readonly issuer: string;
  readonly validFromMs: number;
  readonly validUntilMs: number;
  readonly fingerprint: string;
};

/** Chain and key as they are stored: blocks only, without what people write between them. */
export type CheckedPair = { readonly certificate: string; readonly key: string; readonly notes: readonly string[] };

const certificateBlocks = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;
const keyBlock = /-----BEGIN ((?:[A-Z0-9]+ )?PRIVATE KEY)-----[^-]*-----END \1-----/;
/** Several keys can be meant by nobody, and long chains are a mistake. */
const chainMax = 16;
/** OpenSSL's security level 2, which Debian uses, takes no shorter ones. */
const rsaBitsMin = 2048;
const dayMs = 24 * 3600 * 1000;
/** Let's Encrypt's certificates are renewed 30 days before their end. */
const soonMs = 14 * dayMs;

/**
 * Reads a chain and its key (null: in the same text). Throws `certificate-invalid` for what no client would take; `notes` has what
 * some won't.
 */
export function checkPair(certificateText: string, keyText: string | null, nowMs: number): CheckedPair {
  const blocks = certificateText.match(certificateBlocks) ?? [];
  const [leafText] = blocks;
  if (leafText === undefined)
    throw invalid('the certificate is not there: give a PEM file with "-----BEGIN CERTIFICATE-----"');
  if (blocks.length > chainMax)
    throw invalid(`the file has ${blocks.length} certificates: a chain has at most ${chainMax}`);
  const chain = blocks.map((block, index) => readCertificate(block, `certificate ${index + 1} of the file`));
  const [leaf, ...issuers] = chain;
  if (leaf === undefined) throw invalid('the certificate is not there');
  const key = readKey(keyText ?? certificateText);
  if (!leaf.checkPrivateKey(key.object)) {
    const fitting = issuers.findIndex((issuer) => issuer.checkPrivateKey(key.object));
    throw invalid(
      fitting < 0
        ? `the key does not belong to the certificate of ${nameOf(leaf)}: give the key that it was made with`
        : `the key belongs to certificate ${fitting + 2} of the file: the certificate of the key comes first, then those that issued it`,
    );
  }
  const facts = factsOf(leaf);
  if (facts.validUntilMs <= nowMs)
    throw invalid(`the certificate of ${nameOf(leaf)} has expired, on ${dateOf(facts.validUntilMs)}: renew it first`);
  const notes = [...timeNotes(facts, nowMs)];
  if (facts.covers.length === 0)
    notes.push('it names no hosts (no subjectAltName), so no browser takes it; a common name counts no more');
  const broken = chain.findIndex((one, index) => {
    const issuer = chain[index + 1];
    return issuer !== undefined && !one.checkIssued(issuer);
  });
  if (broken >= 0)
    notes.push(`certificate ${broken + 2} of the file did not issue the one before it, so some clients won't trust it`);
  return { certificate: `${blocks.join('\n')}\n`, key: `${key.text}\n`, notes };
}

/** Of a stored chain; null if it can't be read. */
export function readFacts(certificate: string): CertificateFacts | null {
  try {
    return factsOf(new X509Certificate(certificate));
  } catch {
    return null;
  }
}

/** Whether clients of a host take the certificate: `*.example.com` has to be named as such, `*` asks for nothing. */
export function coversHost(certificate: string, host: string): boolean {
  if (host === '*') return true;
  try {
    const leaf = new X509Certificate(certificate);
    if (host.startsWith('*.')) return factsOf(leaf).covers.includes(host);
    return (isIP(host) === 0 ? leaf.checkHost(host, { subject: 'never' }) : leaf.checkIP(host)) !== undefined;
  } catch {
    return false;
  }
}

export function timeNotes({ validFromMs, validUntilMs }: CertificateFacts, nowMs: number): readonly string[] {
  if (validUntilMs <= nowMs) return [`it has expired, on ${dateOf(validUntilMs)}`];
  if (validFromMs > nowMs) return [`it is not valid before ${dateOf(validFromMs)}`];
  const days = Math.floor((validUntilMs - nowMs) / dayMs);
  return validUntilMs - nowMs < soonMs ? [`it expires on ${dateOf(validUntilMs)}, in ${days} days`] : [];
}

function readCertificate(block: string, what: string): X509Certificate {
  try {
    return new X509Certificate(block);
  } catch (error) {
    throw invalid(`${what} can't be read: ${messageOf(error)}`);
  }
}

function readKey(text: string): { readonly object: KeyObject; readonly text: string } {
  const [block] = text.match(keyBlock) ?? [];
  if (block === undefined)
    throw invalid('the key is not there: give a PEM file with "-----BEGIN PRIVATE KEY-----" (or RSA, or EC)');
  if (block.includes('ENCRYPTED'))
    throw invalid('the key needs a passphrase, which nobody could type: "openssl pkey -in KEY -out NEW" takes it off');
  let object: KeyObject;
  try {
    object = createPrivateKey(block);
  } catch (error) {
    throw invalid(`the key can't be read: ${messageOf(error)}`);
  }
  const bits = object.asymmetricKeyType === 'rsa' ? object.asymmetricKeyDetails?.modulusLength : undefined;
  if (bits !== undefined && bits < rsaBitsMin)
    throw invalid(`the key has ${bits} bits, and clients take RSA keys from ${rsaBitsMin} bits on: make a new one`);
  return { object, text: block };
}

function factsOf(certificate: X509Certificate): CertificateFacts {
  const names = (certificate.subjectAltName ?? '').split(', ').flatMap((entry) => {
    const [, name] = /^(?:DNS|IP Address):([^"]+)$/.exec(entry) ?? [];
    return name === undefined ? [] : [name.toLowerCase()];
  });
  return {
    covers: names,
    issuer: certificate.issuer.replaceAll('\n', ', '),
    validFromMs: Date.parse(certificate.validFrom),
    validUntilMs: Date.parse(certificate.validTo),
    fingerprint: certificate.fingerprint256,
  };
}

function nameOf(certificate: X509Certificate): string {
  return factsOf(certificate).covers[0] ?? certificate.subject.replaceAll('\n', ', ');
}

function dateOf(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}

function invalid(text: string): FlockError {
  return new FlockError('certificate-invalid', text);
}
