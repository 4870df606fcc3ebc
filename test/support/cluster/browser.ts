import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { ClusterHost } from './cluster-host.ts';

/** Loads of a page that a browser has reloaded again and again, all of them; `failed`: what became of those without an answer of 200. */
export type BrowserResult = { readonly loads: number; readonly failed: readonly string[] };

const program = join(import.meta.dirname, 'browser-process.ts');
const endMsMax = 60_000;

/** Chromium on a host's network, which shows the page of this host name at `at`. */
export function startBrowser(from: ClusterHost, at: ClusterHost, host: string): { stop(): Promise<BrowserResult> } {
  const args = ['-t', String(from.host.pid), '-n', '--', process.execPath, program, `http://${host}/`, at.address];
  const child = spawn('nsenter', args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const said = text(child.stdout);
  return {
    async stop() {
      const timer = setTimeout(() => child.kill('SIGKILL'), endMsMax);
      child.stdin.end();
      const line = await said;
      clearTimeout(timer);
      if (line === '') throw new Error('the browser ended without a result');
      return JSON.parse(line) as BrowserResult;
    },
  };
}
