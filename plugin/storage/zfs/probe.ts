import type { Capabilities } from '../storage.ts';

/** What the tools on this host know, beyond the contract's capabilities. */
export type Support = Capabilities & {
  readonly xattrSa: boolean;
  readonly posixAcl: boolean;
  readonly importWithoutMounts: boolean;
  readonly ashift: boolean;
  /** `zpool list -o readonly`. */
  readonly poolReadOnly: boolean;
  readonly poolSync: boolean;
  /** The property. */
  readonly written: boolean;
  /** `zfs send -e`. */
  readonly sendEmbedded: boolean;
  /** `zfs send -nP`. */
  readonly sendEstimate: boolean;
};

/** Texts that the tools print when called wrongly: they name every command, option and property value. */
export type Usage = {
  readonly zfs: string;
  readonly zfsGet: string;
  readonly zpool: string;
  readonly zpoolGet: string;
};

/** Pure. */
export function toSupport(usage: Usage): Support {
  const compression = compressionValues(propertyValues(usage.zfsGet, 'compression'));
  const sendFlags = flagsOf(usage.zfs, 'send');
  const poolSync = /^\s*sync \[pool\]/m.test(usage.zpool);
  const written = /^\s*written\s/m.test(usage.zfsGet);
  return {
    compression,
    recordSizeBytesMax: recordSizeMax(propertyValues(usage.zfsGet, 'recordsize')),
    resumableReceive: flagsOf(usage.zfs, 'receive').includes('s') && /^\s*send .*-t </m.test(usage.zfs),
    bookmarks: /^\s*bookmark /m.test(usage.zfs),
    compressedSend: sendFlags.includes('c') && sendFlags.includes('L'),
    clonesDependOnOrigin: true,
    cheapContentMarks: poolSync && written,
    xattrSa: /\bsa\b/.test(propertyValues(usage.zfsGet, 'xattr')),
    posixAcl: /\bposix(acl)?\b/.test(propertyValues(usage.zfsGet, 'acltype')),
    importWithoutMounts: usage.zpool.includes('[-N]'),
    ashift: /^\s*ashift\s/m.test(usage.zpoolGet),
    poolReadOnly: /^\s*readonly\s/m.test(usage.zpoolGet),
    poolSync,
    written,
    sendEmbedded: sendFlags.includes('e'),
    sendEstimate: sendFlags.includes('n') && sendFlags.includes('P'),
  };
}

/** The single-letter flags in all usage lines of a command, such as `vnFu` of `receive [-vnFu]`. */
function flagsOf(usage: string, command: string): string {
  return [...usage.matchAll(new RegExp(`^\\s*${command} \\[-(\\w+)\\]`, 'gm'))].map((match) => match[1] ?? '').join('');
}

/** The text behind the two yes/no columns of a property. */
function propertyValues(usage: string, property: string): string {
  return new RegExp(`^\\s*${property}\\s+(?:YES|NO)\\s+(?:YES|NO)\\s+(.*)$`, 'm').exec(usage)?.[1] ?? '';
}

/** `on` means lz4 wherever that exists, lzjb before. */
function compressionValues(text: string): readonly string[] {
  const values = text
    .split('|')
    .map((value) => value.trim())
    .filter((value) => value !== '' && value !== 'on' && value !== 'off')
    .flatMap(expandRanges);
  return [...values].sort((a, b) => rank(a) - rank(b));
}

function rank(value: string): number {
  const index = ['lz4', 'lzjb'].indexOf(value);
  return index < 0 ? 2 : index;
}

/** `gzip-[1-9]` or `zstd-fast-[1-10,20,30]` as its values. */
function expandRanges(value: string): readonly string[] {
  const match = /^(.*)\[([0-9,-]+)\]$/.exec(value);
  if (match === null) return [value];
  const [, stem = '', ranges = ''] = match;
  return ranges.split(',').flatMap((range) => {
    const [from = '', to = from] = range.split('-');
    const length = Number(to) - Number(from) + 1;
    return Array.from({ length }, (_, index) => `${stem}${Number(from) + index}`);
  });
}

/** `512 to 128k, power of 2`. */
function recordSizeMax(text: string): number | null {
  const [, digits, unit] = / to ([0-9]+)([kKmM]?)/.exec(text) ?? [];
  if (digits === undefined) return null;
  return Number(digits) * (unit === '' ? 1 : unit?.toLowerCase() === 'k' ? 1024 : 1024 ** 2);
}
