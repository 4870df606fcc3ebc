import { readdir, readFile } from 'node:fs/promises';
import type { DatasetId } from '../controller/model/names.ts';

/**
 * Whether Docker's daemon sees what the plugin mounts. It does by a bind mount that it shares with the plugin. When the daemon is killed
 * and started, it can take that bind away from under the plugin that it has just started (it cleans up after the old one when that one's
 * end is told late): what is mounted then shows in the plugin only, and containers would get a bare directory in its place.
 */
export type DockerView = {
  /** Of a dataset that is mounted. True also where nobody can tell: outside a managed plugin, or if no daemon is found. */
  shows(id: DatasetId): Promise<boolean>;
  /** Whether the daemon has the folder at all that this plugin mounts in; null: nobody can tell. */
  sharesFolder(): Promise<boolean | null>;
};

/** `root`: of the file system that this process has as /, as its mount table names it. */
const managedRoot = /\/plugins\/[0-9a-f]{64}\/rootfs$/;

/** `folder`: the manifest's propagatedMount, as the plugin sees it. */
export function createDockerView(folder: string): DockerView {
  let daemon: string | null = null;
  /** Null: nobody can tell. */
  async function tables(): Promise<{ readonly own: string; readonly daemons: string } | null> {
    const own = await tableOf('self');
    if (!managedRoot.test(rootOf(own))) return null;
    if (daemon === null || !(await isDaemon(daemon))) daemon = await findDaemon();
    const daemons = daemon === null ? '' : await tableOf(daemon);
    return daemons === '' ? null : { own, daemons };
  }
  return {
    async shows(id) {
      const found = await tables();
      return found === null || isShown(found.daemons, id);
    },
    async sharesFolder() {
      const found = await tables();
      return found === null ? null : isFolderShared(found.own, found.daemons, folder);
    },
  };
}

/** Whether a plugin's shared folder in the daemon's table is in the group of mounts (shared:N) that the plugin's folder is in. Pure. */
export function isFolderShared(own: string, daemons: string, folder: string): boolean {
  const groupOf = (line: string) => / shared:(\d+) /.exec(line)?.[1] ?? null;
  const pointOf = (line: string) => line.split(' ')[4] ?? '';
  const group = groupOf(own.split('\n').findLast((line) => pointOf(line) === folder) ?? '');
  const isSame = (line: string) => shared.test(pointOf(line)) && groupOf(line) === group;
  return group !== null && daemons.split('\n').some(isSame);
}

/**
 * Whether a table (/proc/PID/mountinfo, proc(5)) has the dataset below the topmost mount of a plugin's shared folder: one below another
 * mount there is hidden. Pure.
 */
export function isShown(table: string, id: DatasetId): boolean {
  const lines = table.split('\n').map((line) => {
    const [mount = '', parent = '', , , point = ''] = line.split(' ');
    return { mount, parent, point };
  });
  const suffix = `/volumes/${id}`;
  return lines.some(({ parent, point }) => {
    if (!point.endsWith(suffix) || !shared.test(point.slice(0, -suffix.length))) return false;
    const folders = lines.filter((line) => line.point === point.slice(0, -suffix.length));
    const top = folders.find(({ mount }) => !folders.some((other) => other.parent === mount));
    return top?.mount === parent;
  });
}

/** Docker's folder for what a plugin mounts, whichever folder of the host Docker's data is in. */
const shared = /\/[0-9a-f]{64}\/propagated-mount$/;

function rootOf(table: string): string {
  const line = table.split('\n').findLast((one) => one.split(' ')[4] === '/');
  return line?.split(' ')[3] ?? '';
}

async function findDaemon(): Promise<string | null> {
  for (const name of await readdir('/proc')) if (/^\d+$/.test(name) && (await isDaemon(name))) return name;
  return null;
}

async function isDaemon(pid: string): Promise<boolean> {
  return (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')).trim() === 'dockerd';
}

async function tableOf(pid: string): Promise<string> {
  return await readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => '');
}
