import { FlockError } from '../../controller/model/errors.ts';
import { quote } from '../../controller/model/names.ts';
import type { CertificateView } from '../../controller/model/proxy-api.ts';
import { proxyKeys, type StoredCertificate, storedCertificateSchema } from '../model/keys.ts';
import { certificateName, type Entrance } from '../model/records.ts';
import { formatEntrance } from '../model/route-text.ts';
import type { Seen } from '../model/status.ts';
import { checkPair, coversHost, readFacts, timeNotes } from './certificate-check.ts';
import { type ProxyApiParts, seenBy } from './parts.ts';
import { poll } from './poll.ts';
import { changeDocument, removeDocument } from './store-documents.ts';

/** How long an answer waits for this node to have read what was stored. */
const seenMsMax = 2_000;
const routesNamedMax = 5;
/** Chain and key; a value of the store has its own limit, well above. */
const textBytesMax = 96 * 1024;

/** Replaces one of the same name: that is how a certificate is renewed. */
export async function addCertificate(
  parts: ProxyApiParts,
  {
    name: text,
    certificate,
    key,
  }: { readonly name: string; readonly certificate: string; readonly key: string | null },
  signal: AbortSignal,
): Promise<CertificateView> {
  const name = parseName(text);
  const checked = checkPair(certificate, key, parts.nowMs());
  if (checked.certificate.length + checked.key.length > textBytesMax)
    throw new FlockError(
      'certificate-invalid',
      `chain and key are more than ${textBytesMax / 1024} KiB: is it the right file?`,
    );
  const stored: StoredCertificate = {
    name,
    createdAtMs: parts.nowMs(),
    certificate: checked.certificate,
    key: checked.key,
  };
  await changeDocument(parts.store(), proxyKeys.certificate(name), storedCertificateSchema, () => stored);
  await poll(seenMsMax, signal, () => {
    const found = seenBy(parts).documents.certificates.find((one) => one.name === name);
    return found?.certificate === stored.certificate ? true : null;
  });
  const view = viewCertificate(stored, seenBy(parts), parts.nowMs());
  return { ...view, notes: [...new Set([...checked.notes, ...view.notes])] };
}

export function listCertificates(seen: Seen, nowMs: number): readonly CertificateView[] {
  return seen.documents.certificates
    .map((stored) => viewCertificate(stored, seen, nowMs))
    .toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

/** `force`: also if routes use it, whose handshakes fail then. */
export async function removeCertificate(
  parts: ProxyApiParts,
  text: string,
  force: boolean,
  signal: AbortSignal,
): Promise<void> {
  const name = parseName(text);
  const users = usersOf(name, seenBy(parts));
  if (users.length > 0 && !force) {
    const rest = users.length > routesNamedMax ? ` and ${users.length - routesNamedMax} more` : '';
    const list = users.slice(0, routesNamedMax).map(formatEntrance).join(', ');
    throw new FlockError(
      'certificate-in-use',
      `certificate ${name} is used by ${list}${rest}: remove these routes first; --force removes it all the same, and their handshakes fail then`,
      { name },
    );
  }
  if (!(await removeDocument(parts.store(), proxyKeys.certificate(name))))
    throw new FlockError(
      'certificate-not-found',
      `the store has no certificate ${quote(name)}: "flockctl certificate ls" shows them`,
      { name },
    );
  await poll(seenMsMax, signal, () =>
    seenBy(parts).documents.certificates.some((one) => one.name === name) ? null : true,
  );
}

/** What keeps clients of a route from taking its certificate. Pure. */
export function routeCertificateNotes(entrance: Entrance, { documents }: Seen, nowMs: number): readonly string[] {
  if (entrance.protocol !== 'https') return [];
  const { certificate: name, host } = entrance;
  const stored = documents.certificates.find((one) => one.name === name);
  // In a file of the node, or nowhere, which the route's state says.
  if (stored === undefined) return [];
  const facts = readFacts(stored.certificate);
  if (facts === null) return [`certificate ${name} can't be read: add it again`];
  const notes = timeNotes(facts, nowMs).map((note) => `certificate ${name}: ${note}`);
  if (!coversHost(stored.certificate, host)) notes.push(uncovered(name, host, facts.covers));
  return notes;
}

function viewCertificate(stored: StoredCertificate, seen: Seen, nowMs: number): CertificateView {
  const { name, createdAtMs: addedAtMs, certificate } = stored;
  const users = usersOf(name, seen);
  const routes = users.map(formatEntrance);
  const facts = readFacts(certificate);
  if (facts === null) {
    const notes = ["it can't be read: add it again"];
    return { name, covers: [], issuer: '', validFromMs: 0, validUntilMs: 0, fingerprint: '', routes, addedAtMs, notes };
  }
  const hosts = new Set(users.flatMap((entrance) => (entrance.protocol === 'https' ? [entrance.host] : [])));
  const wrong = [...hosts].filter((host) => !coversHost(certificate, host));
  const notes = [...timeNotes(facts, nowMs), ...wrong.map((host) => uncovered(name, host, facts.covers))];
  return { name, ...facts, covers: [...facts.covers], routes, addedAtMs, notes };
}

function usersOf(name: string, { collected }: Seen): readonly Entrance[] {
  return collected.records.routes.flatMap(({ entrance }) =>
    entrance.protocol === 'https' && entrance.certificate === name ? [entrance] : [],
  );
}

function uncovered(name: string, host: string, covers: readonly string[]): string {
  const list = covers.length === 0 ? 'no host' : covers.slice(0, routesNamedMax).join(', ');
  return `certificate ${name} does not cover ${host}, so clients will refuse it there: it is for ${list}`;
}

function parseName(text: string): string {
  const parsed = certificateName.safeParse(text);
  if (parsed.success) return parsed.data;
  throw new FlockError('invalid-name', `invalid certificate name ${quote(text)}: ${parsed.error.issues[0]?.message}`);
}
