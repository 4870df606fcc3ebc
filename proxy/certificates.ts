import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { createSecureContext, type SecureContext } from 'node:tls';
import { messageOf } from '../controller/model/errors.ts';
import type { StoredCertificate } from './model/keys.ts';
import type { Listener } from './model/table.ts';
import { targetsOf } from './model/table.ts';

/** PEM texts: the chain, leaf first, and its key. */
export type Certificate = { readonly certificate: string; readonly key: string };

/** The certificates that routes name: from the store (`flockctl certificate add`), else NAME.crt and NAME.key in a folder of the host. */
export type Certificates = {
  /** Looks for these names. Files that were there are looked at again at most every `filesMs`. */
  update(stored: readonly StoredCertificate[], wanted: ReadonlySet<string>, nowMs: number): Promise<void>;
  /** Null: there is none of this name that can be used. A layer that is given a broken one could lose all others with it. */
  get(name: string): Certificate | null;
  /** The same for servers of this process. */
  context(name: string): SecureContext | null;
  /** Of those that were wanted last, by `certificate NAME`. */
  problems(): ReadonlyMap<string, string>;
  /** Differs whenever a certificate does. */
  mark(): string;
};

type Usable = Certificate & { readonly context: SecureContext };
type Looked = { readonly found: Usable } | { readonly problem: string };
/** `tries`: how often the files were found not to fit each other since. */
type FromFile = { readonly mark: string; readonly tries: number } & Looked;
type FromStore = { readonly number: number } & Looked;

const filesMs = 5_000;
/** Files read at a time. */
const readsMax = 16;

export function createCertificates(folder: string): Certificates {
  let stored: ReadonlyMap<string, FromStore> = new Map();
  let files: ReadonlyMap<string, FromFile> = new Map();
  let lookedAtMs = Number.NEGATIVE_INFINITY;
  // A document that has changed in the store is another object.
  const known = new WeakMap<StoredCertificate, FromStore>();
  let last = 0;

  function fromStore(one: StoredCertificate): FromStore {
    const before = known.get(one);
    if (before !== undefined) return before;
    last += 1;
    const made = { number: last, ...usable(one, 'in the store') };
    known.set(one, made);
    return made;
  }

  const find = (name: string): Usable | null => {
    const one = stored.get(name) ?? files.get(name);
    return one !== undefined && 'found' in one ? one.found : null;
  };

  return {
    async update(list, wanted, nowMs) {
      stored = new Map(list.filter(({ name }) => wanted.has(name)).map((one) => [one.name, fromStore(one)]));
      const names = [...wanted].filter((name) => !stored.has(name));
      const isDue = Math.abs(nowMs - lookedAtMs) >= filesMs;
      if (isDue) lookedAtMs = nowMs;
      const before = files;
      const next = new Map<string, FromFile>();
      for (let start = 0; start < names.length; start += readsMax) {
        const some = names.slice(start, start + readsMax);
        const found = await Promise.all(some.map((name) => look(folder, name, before.get(name) ?? null, isDue)));
        for (const [position, name] of some.entries()) {
          const one = found[position];
          if (one !== undefined) next.set(name, one);
        }
      }
      files = next;
    },
    get: find,
    context: (name) => find(name)?.context ?? null,
    problems: () =>
      new Map(
        [...stored, ...files].flatMap(([name, one]) =>
          'problem' in one ? [[`certificate ${name}`, one.problem] as const] : [],
        ),
      ),
    mark: () =>
      JSON.stringify([
        [...stored].map(([name, { number }]) => [name, number]),
        [...files].map(([name, { mark }]) => [name, mark]),
      ]),
  };
}

/** The names that the listeners' https routes use. */
export function certificatesOf(listeners: Iterable<Listener>): ReadonlySet<string> {
  const names = new Set<string>();
  for (const listener of listeners) {
    if (listener.kind !== 'tls') continue;
    for (const { mode } of targetsOf(listener)) if (typeof mode !== 'string') names.add(mode.certificate);
  }
  return names;
}

/** Looks at two files that do not fit each other before the pair from before is given up. */
const renewalTries = 3;

async function look(folder: string, name: string, before: FromFile | null, isDue: boolean): Promise<FromFile> {
  if (before !== null && !isDue) return before;
  const paths = [join(folder, `${name}.crt`), join(folder, `${name}.key`)] as const;
  try {
    const marks = await Promise.all(paths.map((path) => stat(path, { bigint: true })));
    const mark = marks.map(({ ino, size, mtimeNs }) => [ino, size, mtimeNs].join(' ')).join(', ');
    if (before !== null && before.mark === mark) return before;
    const [certificate, key] = await Promise.all([readFile(paths[0], 'utf8'), readFile(paths[1], 'utf8')]);
    const looked = usable({ certificate, key }, `in ${paths[0]}`);
    // One of the two files may have been replaced just now, and the other is about to be.
    if ('problem' in looked && before !== null && 'found' in before && before.tries < renewalTries)
      return { ...before, tries: before.tries + 1 };
    return { mark, tries: 0, ...looked };
  } catch (error) {
    const isMissing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    const why = isMissing ? `there are no ${paths.join(' and ')} either` : messageOf(error);
    const problem = `there is no certificate ${name} in the store ("flockctl certificate add ${name}" puts it there), and ${why}`;
    return { mark: problem, tries: 0, problem };
  }
}

/** OpenSSL says whether it is one, and whether the key is its own. */
function usable({ certificate, key }: Certificate, where: string): Looked {
  try {
    return { found: { certificate, key, context: createSecureContext({ cert: certificate, key }) } };
  } catch (error) {
    return { problem: `the certificate ${where} can't be used: ${messageOf(error)}` };
  }
}
