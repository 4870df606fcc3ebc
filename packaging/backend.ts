import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { formatSize } from '../controller/model/quantity.ts';
import {
  decodeSettings,
  parseSettingsText,
  type Settings,
  type SettingsRequest,
} from '../controller/model/settings.ts';
import { host } from './paths.ts';
import { ensureZfsFuse, loadModule } from './zfs-fuse.ts';

/** What `make up BACKEND=... POOL=... POOL_SIZE=...` asks for; empty text is "not given". */
export type Wish = { readonly backend: string; readonly pool: string; readonly poolSize: string };

export type Backend = {
  /** The value of FLOCK_SETTINGS; it counts at the plugin's very first start on a host only. */
  readonly firstSettings: string;
  readonly restartPlugin: boolean;
};

/** Decides on the backend, as the host's settings say if it has any, and makes ready what it needs of the host. */
export async function prepareBackend(wish: Wish, say: (text: string) => void): Promise<Backend> {
  const firstSettings = Object.entries({ backend: wish.backend, pool: wish.pool, 'pool-size': wish.poolSize })
    .filter(([, value]) => value !== '')
    .map(([name, value]) => `${name}=${value}`);
  const request = parseSettingsText(firstSettings.join(' '));
  refuseUnseenPool(request);
  const present = existsSync(host.settingsFile) ? decodeSettings(await readFile(host.settingsFile, 'utf8')) : null;
  if (present !== null) refuseChange(present, request);

  const backend = present?.backend ?? request.backend ?? ((await hasOpenZfs()) ? 'zfs' : 'btrfs');
  if (request.backend === undefined) firstSettings.unshift(`backend=${backend}`);
  const origin = present === null ? '' : `, as ${host.settingsFile} says`;
  if (backend === 'btrfs') {
    await loadModule('btrfs');
    if (!(await readFile('/proc/filesystems', 'utf8')).includes('\tbtrfs\n')) {
      throw new Error('this kernel has no btrfs: use BACKEND=zfs');
    }
    say(`btrfs${origin}`);
    return { firstSettings: firstSettings.join(' '), restartPlugin: false };
  }
  if (await hasOpenZfs()) {
    say(`zfs${origin}, OpenZFS's kernel module`);
    return { firstSettings: firstSettings.join(' '), restartPlugin: false };
  }
  const { restartPlugin } = await ensureZfsFuse((text) => say(`zfs${origin}, no OpenZFS module here: ${text}`));
  return { firstSettings: firstSettings.join(' '), restartPlugin };
}

async function hasOpenZfs(): Promise<boolean> {
  if (existsSync('/dev/zfs')) return true;
  await loadModule('zfs');
  if (!existsSync('/dev/zfs')) return false;
  // The plugin starts with Docker at every boot and can't load it.
  await writeFile('/etc/modules-load.d/flock.conf', '# Written by flock\'s "make up"\nzfs\n');
  return true;
}

/** Of the host's files the plugin sees only those below /var/lib and /dev. */
function refuseUnseenPool({ backend, pool }: SettingsRequest): void {
  if (pool === undefined || !pool.startsWith('/') || /^\/(var\/lib|dev)\//.test(pool)) return;
  throw new Error(
    `POOL=${pool}${backend === undefined ? '' : ` with BACKEND=${backend}`}: the plugin sees files below /var/lib and devices below /dev only`,
  );
}

function refuseChange(present: Settings, request: SettingsRequest): void {
  const checks = [
    ['BACKEND', present.backend, request.backend],
    ['POOL', present.pool, request.pool],
    ['POOL_SIZE', formatSize(present.poolSizeBytes), request.poolSizeBytes && formatSize(request.poolSizeBytes)],
  ] as const;
  for (const [name, is, wanted] of checks) {
    if (wanted === undefined || wanted === is) continue;
    throw new Error(
      `${name}=${wanted}, but this host has a flock pool with ${name}=${is}. Leave ${name} out to use that one. To start afresh: "make down", then move ${host.stateDir} away (it holds the volumes)`,
    );
  }
}
