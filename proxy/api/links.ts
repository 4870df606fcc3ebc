import { FlockError } from '../../controller/model/errors.ts';
import { quote } from '../../controller/model/names.ts';
import type { MadeLinkView } from '../../controller/model/proxy-api.ts';
import { isCalled, shortId } from '../model/collect.ts';
import { proxyKeys, type StoredLink } from '../model/keys.ts';
import { type DeclaredLink, parseLinkText } from '../model/labels.ts';
import { formatLinkSource } from '../model/route-text.ts';
import type { Seen } from '../model/status.ts';
import { existingService } from './near.ts';
import { type ProxyApiParts, seenBy } from './parts.ts';
import { poll } from './poll.ts';
import { missingServiceRemedy, seenMsMax } from './routes.ts';
import { describeOrigin, linkRows } from './rows.ts';
import { createDocument, removeDocument } from './store-documents.ts';

const containerPattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$/;
const storedId = /^[a-z0-9][a-z0-9-]{0,62}$/;

/** `container`: a name or an id, of any node; the link holds for each container that is called so, now or later. */
export async function addLink(
  parts: ProxyApiParts,
  { container, link: text, force }: { readonly container: string; readonly link: string; readonly force: boolean },
  signal: AbortSignal,
): Promise<MadeLinkView> {
  if (!containerPattern.test(container))
    throw new FlockError('invalid-name', `invalid container name ${quote(container)}: "docker ps" shows names and ids`);
  const wanted = parseLinkText(text);
  const seen = seenBy(parts);
  if (!force) existingService(wanted.service, seen, missingServiceRemedy);
  const refusal = linkRefusal(container, wanted, seen);
  if (refusal !== null) throw refusal;
  const createdAtMs = parts.nowMs();
  const made = await createDocument(parts.store(), proxyKeys.link, (id): StoredLink => {
    return { ...wanted, id, container, createdAtMs };
  });
  const rowOf = () => linkRows(seenBy(parts)).find(({ id }) => id === made.id) ?? null;
  // Its node hears of a container without labels only now.
  const found = await poll(seenMsMax, signal, () => {
    const row = rowOf();
    return row !== null && row.node !== null ? row : null;
  });
  const link = found ?? rowOf();
  if (link === null)
    throw new FlockError(
      'store-unavailable',
      `link ${made.id} is stored, but this node has not seen it within ${seenMsMax / 1000} s: "flockctl link ls" shows when it does`,
      { id: made.id },
    );
  const remedy = `no node has a container ${container} yet: the link begins with it ("docker ps" on its host shows its name)`;
  return { link, notes: link.node === null ? [remedy] : [] };
}

/** Why a link can't be made; null: it can. Another name for the same target on the same port is fine. Pure. */
export function linkRefusal(
  container: string,
  wanted: Omit<DeclaredLink, 'label'>,
  { documents }: Pick<Seen, 'documents'>,
): FlockError | null {
  const called = documents.containers.filter((one) => isCalled(one, container));
  const names = new Set([container, ...called.flatMap(({ id, name }) => [id, shortId(id), name])]);
  const stored = documents.links
    .filter((link) => names.has(link.container) || called.some((one) => isCalled(one, link.container)))
    .map((link) => ({ link, how: `made by flockctl: "flockctl link rm ${link.id}" removes that link` }));
  const declared = called.flatMap(({ name, node, declared: { links } }) =>
    links.map((link) => ({
      link,
      how: `${describeOrigin({ kind: 'label', label: link.label, container: name, node })}: it goes with the label`,
    })),
  );
  for (const { link, how } of [...declared, ...stored]) {
    if (link.port !== wanted.port) continue;
    const isSameTarget = link.service === wanted.service && link.targetPort === wanted.targetPort;
    if (isSameTarget && link.host !== wanted.host) continue;
    const source = formatLinkSource(link.host, link.port);
    return new FlockError(
      'link-exists',
      `port ${wanted.port} of container ${container} (${source}) leads to ${link.service}:${link.targetPort} already, ${how}`,
      { container, port: wanted.port },
    );
  }
  return null;
}

export async function removeLink(parts: ProxyApiParts, id: string, signal: AbortSignal): Promise<void> {
  if (storedId.test(id) && (await removeDocument(parts.store(), proxyKeys.link(id)))) {
    await poll(seenMsMax, signal, () => (seenBy(parts).documents.links.some((link) => link.id === id) ? null : true));
    return;
  }
  const found = linkRows(seenBy(parts)).find((link) => link.id === id);
  if (found?.origin.kind === 'label')
    throw new FlockError(
      'made-by-label',
      `link ${id} is ${describeOrigin(found.origin)}: start that container without the label`,
      { id },
    );
  throw new FlockError('link-not-found', `there is no link ${quote(id)}: "flockctl link ls" shows them`, { id });
}
