import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { z } from 'zod';
import { parseProblemOf } from '../controller/model/shape.ts';

/**
 * What people set for the proxy of one host, in /var/lib/flock/proxy-settings.json, such as `{"accessLog": true}`. Changes hold within
 * seconds, without a restart, unless their setting says otherwise.
 */
export type ProxySettings = {
  /** A line of JSON in the proxy's log for each request and connection that the gate has served. */
  readonly accessLog: boolean;
  /** The gate alone serves everything, without the kernel and HAProxy. Of the proxy's next start. */
  readonly embedded: boolean;
};

export const defaultSettings: ProxySettings = { accessLog: false, embedded: false };

const schema = z.strictObject({
  accessLog: z.boolean().default(defaultSettings.accessLog),
  embedded: z.boolean().default(defaultSettings.embedded),
});

/** Throws what `parseProblemOf` reads: an unknown name is a mistake, too. */
export function parseSettings(text: string): ProxySettings {
  return schema.parse(JSON.parse(text));
}

export type SettingsFile = {
  current(): ProxySettings;
  /** Why the file can't be used; the settings are those of before. */
  problem(): string | null;
  /** Reads the file. Never rejects. */
  read(): Promise<void>;
  /** Reads it again and again until the signal fires. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
};

const pollMsDefault = 2_000;

export function createSettingsFile(path: string, log: Logger, pollMs = pollMsDefault): SettingsFile {
  let settings = defaultSettings;
  let problem: string | null = null;
  let lastText: string | null = null;

  async function read(): Promise<void> {
    try {
      const text = await readFile(path, 'utf8').catch((error: unknown) => {
        if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return '{}';
        throw error;
      });
      if (text === lastText) return;
      lastText = text;
      settings = parseSettings(text);
      problem = null;
      log.info({ event: 'settings.read', ...settings }, 'settings of this host');
    } catch (error) {
      const names = Object.keys(schema.shape).join(', ');
      const next = `${path}: ${parseProblemOf(error)}. It may have: ${names}`;
      if (next !== problem) log.error({ event: 'settings.unusable', reason: next }, 'the settings stay as they were');
      problem = next;
    }
  }

  return {
    current: () => settings,
    problem: () => problem,
    read,
    async run(signal) {
      while (!signal.aborted) {
        await read();
        await sleep(pollMs, undefined, { signal }).catch(() => {});
      }
    },
  };
}
