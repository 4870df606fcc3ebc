/** Consul for tests: Debian's own build, only unpacked, never installed. Only the run that finds none cached needs a mirror. */
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { privateApt, unpack } from './debian.ts';

/** The last Debian release that has Consul: 1.8.7, the oldest version that flock supports. */
const release = 'bullseye';
const program = 'usr/bin/consul';

/** Answers the path of a consul program of the newest version that is cached; downloads one if there is none. Throws CommandError. */
export async function ensureConsul(): Promise<string> {
  const cacheDir = join(process.env['FLOCK_CACHE'] ?? '/var/cache/flock', 'consul');
  await mkdir(cacheDir, { recursive: true });
  const isVersion = (name: string) => /^\d/.test(name) && existsSync(join(cacheDir, name, program));
  const cached = (await readdir(cacheDir)).filter(isVersion).sort().at(-1);
  if (cached !== undefined) return join(cacheDir, cached, program);

  const scratch = await mkdtemp(join(cacheDir, '.part-'));
  try {
    // The lists are downloaded for one package, so they need not stay.
    const apt = await privateApt(join(scratch, 'apt'), ['main'], { release });
    const version = await apt.version('consul');
    const debs = await apt.download([`consul=${version}`], join(scratch, 'debs'));
    await unpack(debs, join(scratch, 'unpacked'));
    // In one step, and whoever was first in doing so wins.
    await rename(join(scratch, 'unpacked'), join(cacheDir, version)).catch((error: unknown) => {
      if (!existsSync(join(cacheDir, version, program))) throw error;
    });
    return join(cacheDir, version, program);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
