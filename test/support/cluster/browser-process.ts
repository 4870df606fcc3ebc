import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import type { BrowserResult } from './browser.ts';

/**
 * Shows a page that reloads itself in Chromium until its standard input ends, then says in one line of JSON what came of its loads
 * (BrowserResult): `browser-process.ts URL ADDRESS`, the address being what the URL's host stands for.
 */
const [url = '', address = ''] = process.argv.slice(2);
const { hostname } = new URL(url);
const folder = await mkdtemp(join(tmpdir(), 'flock-browser-'));
const options = [
  ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-sync'],
  ...['--disable-background-networking', '--disable-component-update', '--remote-debugging-pipe'],
  ...[`--user-data-dir=${folder}`, `--host-resolver-rules=MAP ${hostname} ${address}`],
];
const chromium = spawn('chromium', [...options, 'about:blank'], {
  stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
  env: { ...process.env, HOME: folder },
});
const [, , , toBrowser, fromBrowser] = chromium.stdio as unknown as [null, null, null, Writable, Readable];

type Message = {
  readonly id?: number;
  readonly method?: string;
  readonly result?: { readonly targetId?: string; readonly sessionId?: string };
  readonly error?: { readonly message: string };
  readonly params?: {
    readonly requestId?: string;
    readonly type?: string;
    readonly errorText?: string;
    readonly response?: { readonly status: number };
  };
};

const answers = new Map<number, (message: Message) => void>();
let asked = 0;
/** Loads of the page, by request, that have an answer and not yet an end. */
const begun = new Map<string, number>();
let loads = 0;
const failed: string[] = [];

function send(method: string, params: object, sessionId?: string): Promise<Message> {
  asked += 1;
  toBrowser.write(`${JSON.stringify({ id: asked, method, params, sessionId })}\0`);
  return new Promise((resolve, reject) => {
    answers.set(asked, (message) =>
      message.error === undefined ? resolve(message) : reject(new Error(`${method}: ${message.error.message}`)),
    );
  });
}

function hear(message: Message): void {
  const { id, method, params } = message;
  if (id !== undefined) answers.get(id)?.(message);
  const request = params?.requestId ?? '';
  if (method === 'Network.responseReceived' && params?.type === 'Document')
    begun.set(request, params.response?.status ?? 0);
  const status = begun.get(request);
  if (method === 'Network.loadingFinished' && status !== undefined) {
    begun.delete(request);
    loads += 1;
    if (status !== 200) failed.push(`status ${status}`);
  }
  if (method === 'Network.loadingFailed' && params?.type === 'Document') failed.push(params.errorText ?? 'failed');
}

let rest = '';
fromBrowser.setEncoding('utf8').on('data', (piece: string) => {
  const parts = (rest + piece).split('\0');
  rest = parts.pop() ?? '';
  for (const part of parts) hear(JSON.parse(part) as Message);
});

const over = new Promise<void>((resolve) => void process.stdin.resume().once('end', resolve));
const died = new Promise<void>((resolve) => {
  chromium.once('exit', () => {
    failed.push('Chromium ended by itself');
    resolve();
  });
});
const shown = (async () => {
  const { result: made } = await send('Target.createTarget', { url: 'about:blank' });
  const attach = { targetId: made?.targetId, flatten: true };
  const session = (await send('Target.attachToTarget', attach)).result?.sessionId;
  await send('Network.enable', {}, session);
  await send('Page.navigate', { url }, session);
})();
await Promise.race([died, shown]);
await Promise.race([died, over]);
const result: BrowserResult = { loads, failed: [...failed] };
chromium.kill('SIGKILL');
await died;
await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
process.stdout.write(`${JSON.stringify(result)}\n`);
process.exit();
