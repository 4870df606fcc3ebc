/**
 * Debian packages, in two ways: installed on this machine, or only downloaded and unpacked through an apt state of our
 * own, so that the machine's sources, lists and installed packages stay as they are.
 */
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CommandError, createCommands } from '../plugin/exec.ts';

export type PrivateApt = {
  /** Downloads packages ("name", "name=version" or "name/suite") and answers the paths of the .deb files. */
  download(packages: readonly string[], intoDir: string): Promise<string[]>;
  /** The version that apt would choose now. */
  version(pkg: string): Promise<string>;
  /** All versions that there are, newest first. */
  versions(pkg: string): Promise<readonly string[]>;
};

const minuteMs = 60_000;
const listsAgeMsMax = 24 * 60 * minuteMs;
const lockSecondsMax = 300;
const commands = createCommands({ DEBIAN_FRONTEND: 'noninteractive' });

/** Installs what is missing of these packages on this machine and answers what that was. None of their services is started. */
export async function ensureInstalled(packages: readonly string[]): Promise<readonly string[]> {
  const missing: string[] = [];
  for (const pkg of packages) if ((await installedVersion(pkg)) === null) missing.push(pkg);
  if (missing.length === 0) return [];
  if (process.getuid?.() !== 0) {
    throw new Error(`${missing.join(', ')} must be installed, and only root can: run this as root`);
  }
  const aptGet = (...args: string[]) =>
    commands.run('apt-get', ['-q', '-y', '-o', `DPkg::Lock::Timeout=${lockSecondsMax}`, ...args], {
      timeoutMs: 20 * minuteMs,
    });
  // A foreign source that is down must not stop us: when Debian's lists are bad too, the install below says so.
  // The lists have no lock timeout of their own, so another apt-get that runs now is worth a second try.
  await aptGet('update').catch(() =>
    sleep(15_000)
      .then(() => aptGet('update'))
      .catch(() => ''),
  );
  const restore = await forbidServices();
  try {
    await aptGet('install', '--no-install-recommends', ...missing);
  } finally {
    await restore();
  }
  return missing;
}

/** The installed version of a package, or null. */
export async function installedVersion(pkg: string): Promise<string | null> {
  try {
    const answer = await commands.run('dpkg-query', ['-W', '-f', '$' + '{db:Status-Status} $' + '{Version}', pkg]);
    return /^installed (\S+)/.exec(answer)?.[1] ?? null;
  } catch (error) {
    if (error instanceof CommandError && error.exitCode === 1) return null;
    throw error;
  }
}

/** More suites beside each release, such as "backports", or another release in place of the machine's own, such as "bullseye". */
export type Suites = readonly string[] | { readonly release: string };

/** An apt of our own in stateDir with these components and suites of the machine's own Debian mirror. */
export async function privateApt(
  stateDir: string,
  components: readonly string[],
  suites: Suites = [],
): Promise<PrivateApt> {
  for (const dir of ['lists/partial', 'cache/archives/partial', 'empty']) {
    await mkdir(join(stateDir, dir), { recursive: true });
  }
  const config = join(stateDir, 'apt.conf');
  const sources = join(stateDir, 'debian.sources');
  await writeFile(config, aptConfiguration(stateDir));
  const wanted = rewriteSources(await machineSources(), components, suites);
  const unchanged = existsSync(sources) && (await readFile(sources, 'utf8')) === wanted;
  const stamp = join(stateDir, 'updated');
  const ageMs = existsSync(stamp) ? Date.now() - (await stat(stamp)).mtimeMs : Number.POSITIVE_INFINITY;
  if (!unchanged || ageMs > listsAgeMsMax) {
    await rm(stamp, { force: true });
    await writeFile(sources, wanted);
    await commands.run('apt-get', ['-c', config, '-q', 'update'], { timeoutMs: 5 * minuteMs });
    await writeFile(stamp, '');
  }
  return {
    async download(packages, intoDir) {
      await mkdir(intoDir, { recursive: true });
      const part = await mkdtemp(join(intoDir, '.part-'));
      try {
        // apt-get writes to the folder it runs in and has no option for another one.
        await commands.run('env', [`--chdir=${part}`, 'apt-get', '-c', config, '-q', 'download', ...packages], {
          timeoutMs: 10 * minuteMs,
        });
        const files = (await readdir(part)).sort();
        for (const name of files) await rename(join(part, name), join(intoDir, name));
        return files.map((name) => join(intoDir, name));
      } finally {
        await rm(part, { recursive: true, force: true });
      }
    },
    async version(pkg) {
      const policy = await commands.run('apt-cache', ['-c', config, 'policy', pkg]);
      const candidate = /^ +Candidate: (\S+)$/m.exec(policy)?.[1];
      if (candidate === undefined || candidate === '(none)') {
        throw new Error(`apt knows no package ${pkg} in ${components.join(', ')} of this machine's Debian mirror`);
      }
      return candidate;
    },
    async versions(pkg) {
      const lines = (await commands.run('apt-cache', ['-c', config, 'madison', pkg])).split('\n');
      return [...new Set(lines.map((line) => line.split('|')[1]?.trim() ?? '').filter((version) => version !== ''))];
    },
  };
}

export async function unpack(debs: readonly string[], intoDir: string): Promise<void> {
  await mkdir(intoDir, { recursive: true });
  for (const deb of debs) await commands.run('dpkg-deb', ['-x', deb, intoDir], { timeoutMs: 2 * minuteMs });
}

/** The machine's Debian sources with other components and suites. Of another release only the main suite is taken. Pure. */
export function rewriteSources(text: string, components: readonly string[], suites: Suites): string {
  const ofRelease = (suite: string) => !suite.includes('-');
  if ('release' in suites) {
    const stanzas = text.split(/\n\s*\n/).filter((stanza) => suitesOf(stanza).some(ofRelease));
    return stanzas.map((stanza) => rewriteFields(stanza, components, () => [suites.release])).join('\n\n');
  }
  const widen = (suite: string) =>
    ofRelease(suite) ? [suite, ...suites.map((suffix) => `${suite}-${suffix}`)] : [suite];
  return rewriteFields(text, components, (names) => names.flatMap(widen));
}

function suitesOf(stanza: string): string[] {
  return words(/^Suites:(.*)$/im.exec(stanza)?.[1] ?? '');
}

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== '');
}

function rewriteFields(
  text: string,
  components: readonly string[],
  rewriteSuites: (names: readonly string[]) => readonly string[],
): string {
  return text
    .split('\n')
    .map((line) => {
      const field = /^(Types|Suites|Components):(.*)$/i.exec(line);
      switch (field?.[1]?.toLowerCase()) {
        case 'types':
          return 'Types: deb';
        case 'suites':
          return `Suites: ${rewriteSuites(words(field?.[2] ?? '')).join(' ')}`;
        case 'components':
          return `Components: ${components.join(' ')}`;
        default:
          return line;
      }
    })
    .join('\n');
}

/** One-line entries ("deb [options] uri suite components") as stanzas, so that there is one format to rewrite. Pure. */
export function stanzasOf(list: string): string {
  const stanzas: string[] = [];
  for (const line of list.split('\n')) {
    const entry = /^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+\S/.exec(line.trim());
    if (entry === null) continue;
    const signedBy = /(?:^|\s)signed-by=(\S+)/i.exec(entry[1] ?? '')?.[1];
    stanzas.push(
      `Types: deb\nURIs: ${entry[2]}\nSuites: ${entry[3]}\nComponents: main\n${signedBy === undefined ? '' : `Signed-By: ${signedBy}\n`}`,
    );
  }
  return stanzas.join('\n');
}

async function machineSources(): Promise<string> {
  const read = async (path: string) => (existsSync(path) ? await readFile(path, 'utf8') : '');
  const sources = await read('/etc/apt/sources.list.d/debian.sources');
  const stanzas = /^URIs:/im.test(sources) ? sources : stanzasOf(await read('/etc/apt/sources.list'));
  if (stanzas.trim() !== '') return stanzas;
  throw new Error('neither debian.sources nor sources.list in /etc/apt names a Debian mirror: add one and try again');
}

/** -c is read after the machine's own apt.conf.d, so its proxy and certificate settings stay in force. */
function aptConfiguration(stateDir: string): string {
  return [
    `Dir::Etc::sourcelist "${stateDir}/debian.sources";`,
    `Dir::Etc::sourceparts "${stateDir}/empty";`,
    `Dir::Etc::preferences "${stateDir}/empty/none";`,
    `Dir::Etc::preferencesparts "${stateDir}/empty";`,
    `Dir::State::lists "${stateDir}/lists";`,
    `Dir::Cache "${stateDir}/cache";`,
    'Acquire::Languages "none";',
    'Acquire::Retries "3";',
    // Otherwise half a list counts as success.
    'APT::Update::Error-Mode "any";',
    // apt's download user may not enter our folder.
    'APT::Sandbox::User "root";',
    '',
  ].join('\n');
}

const policyFile = '/usr/sbin/policy-rc.d';

/** Keeps package scripts from starting services: we start what we want, in the way that the machine has. */
async function forbidServices(): Promise<() => Promise<void>> {
  try {
    await writeFile(policyFile, '#!/bin/sh\nexit 101\n', { flag: 'wx', mode: 0o755 });
  } catch (error) {
    // The machine has a policy of its own: it stays.
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return async () => {};
    throw error;
  }
  return () => unlink(policyFile);
}
