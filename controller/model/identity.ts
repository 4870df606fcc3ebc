import { z } from 'zod';
import { FlockError } from './errors.ts';
import { peerPort } from './host-ports.ts';
import { type Labels, parseLabels } from './labels.ts';
import { type NodeName, parseNodeName, quote } from './names.ts';

/** Who a node is in its cluster, kept on the node itself; the PEM texts in files of their own. */
export type NodeIdentity = {
  readonly clusterId: string;
  readonly name: NodeName;
  /** Where its peers reach it: host name or IP address, and port. */
  readonly address: string;
  readonly port: number;
  /** Of this node's way to Consul, such as http://127.0.0.1:8500. */
  readonly storeAddress: string;
  /** Consul's ACL token, where it wants one. */
  readonly storeToken: string | null;
  readonly caCertificate: string;
  readonly caKey: string;
  readonly certificate: string;
  readonly key: string;
};

export type PeerAddress = { readonly address: string; readonly port: number };

export const storeAddressDefault = 'http://127.0.0.1:8500';

/** The name that a node's certificate is for: it differs between clusters, so that no node is taken for its namesake elsewhere. */
export function nodeDnsName(node: { readonly name: NodeName; readonly clusterId: string }): string {
  return `${node.name}.${node.clusterId}.flock`;
}

const hostNamePattern =
  /^(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$/;
const addressPattern = /^(?:\[(?<bracketed>[^\]]*)\]|(?<plain>[^:[\]]*))(?::(?<port>\d{1,5}))?$/;

/** HOST[:PORT], where HOST is a name, an IPv4 address, or an IPv6 address (in brackets when a port follows). */
export function parsePeerAddress(text: string): PeerAddress {
  if (isIpv6(text)) return { address: text, port: peerPort };
  const groups = addressPattern.exec(text)?.groups;
  const address = groups?.['bracketed'] ?? groups?.['plain'] ?? '';
  const port = Number(groups?.['port'] ?? peerPort);
  const isHost = groups?.['bracketed'] === undefined ? isIpv4OrName(address) : isIpv6(address);
  if (isHost && port > 0 && port < 65_536) return { address, port };
  throw new FlockError(
    'invalid-option',
    `invalid address ${quote(text)}: use HOST or HOST:PORT, such as 10.0.0.1, node-1.example:4270 or [fd00::1]:4270`,
  );
}

export function formatPeerAddress({ address, port }: PeerAddress): string {
  return `${address.includes(':') ? `[${address}]` : address}:${port}`;
}

function isIpv4OrName(text: string): boolean {
  if (!/^[0-9.]+$/.test(text)) return hostNamePattern.test(text);
  const parts = text.split('.');
  return (
    parts.length === 4 && parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256) && text !== '0.0.0.0'
  );
}

function isIpv6(text: string): boolean {
  if (!/^[0-9A-Fa-f:.]{3,45}$/.test(text) || text.split(':').length < 3) return false;
  return URL.canParse(`http://[${text}]`);
}

export function parseStoreAddress(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  const isPlain = url !== null && url.pathname === '/' && url.search === '' && url.username === '';
  if (isPlain && (url.protocol === 'http:' || url.protocol === 'https:')) return url.origin;
  throw new FlockError(
    'invalid-option',
    `invalid store address ${quote(text)}: use Consul's, such as ${storeAddressDefault}`,
  );
}

/** A label to set, or with null to remove. */
export type LabelChanges = Readonly<Record<string, string | null>>;

/** Of words like `rack=r7` (set) and `rack-` (remove). Throws `invalid-option`. */
export function parseLabelChanges(words: readonly string[]): LabelChanges {
  const changes = new Map<string, string | null>();
  for (const word of words) {
    const isRemoval = word.endsWith('-') && !word.includes('=');
    // A label that is to go is held against the same rules.
    const entries = Object.entries(parseLabels(isRemoval ? `${word.slice(0, -1)}=any` : word));
    for (const [label, value] of entries) {
      if (changes.has(label))
        throw new FlockError('invalid-option', `label ${quote(label)} is given twice: say once what it shall be`);
      changes.set(label, isRemoval ? null : value);
    }
  }
  return Object.fromEntries(changes);
}

/** Of words like `rack=r7`, where there is nothing to remove yet. */
export function parseLabelWords(words: readonly string[]): Labels {
  return words.length === 0 ? {} : parseLabels(words.join(','));
}

export function applyLabels(labels: Labels, changes: LabelChanges): Labels {
  const words = Object.entries({ ...labels, ...changes }).flatMap(([label, value]) =>
    value === null ? [] : [`${label}=${value}`],
  );
  // Parsed again for the limit on their number.
  return parseLabelWords(words);
}

/** A join token as the store has it, below the hash of its secret. */
export type TokenDoc = {
  readonly createdAtMs: number;
  readonly expiresAtMs: number;
  readonly usesLeft: number;
  /** Who has used it, so that a node that lost the answer can ask again. */
  readonly usedBy: readonly { readonly node: NodeName; readonly keyFingerprint: string }[];
};

const count = z.int().nonnegative();
const tokenSchema: z.ZodType<TokenDoc> = z.object({
  createdAtMs: count,
  expiresAtMs: count,
  usesLeft: count,
  usedBy: z.array(z.object({ node: z.string().transform(parseNodeName), keyFingerprint: z.string() })),
});

export function decodeToken(text: string): TokenDoc {
  return tokenSchema.parse(JSON.parse(text));
}
