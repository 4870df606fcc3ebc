import { Agent, request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LoadLine, LoadOptions } from './request-load.ts';

/**
 * Sends numbered requests until its standard input ends, and says each second what came of them: one JSON line each (LoadLine). A
 * request is good if its answer is 200 and begins with the request's id; none is ever repeated.
 */
const options = JSON.parse(process.argv[2] ?? '') as LoadOptions;
let isOver = false;
let done = 0;
let failed = 0;
let longestMs = 0;
let node = '-';
let waitingSince: number | null = null;
let running = 0;

type Worker = { readonly prefix: string; sent: number; readonly failed: string[] };

async function work(worker: Worker, agent: Agent | false, method: string): Promise<void> {
  while (!isOver) {
    worker.sent += 1;
    const id = `${worker.prefix}:${worker.sent}`;
    const startMs = performance.now();
    if (running === 0) waitingSince = startMs;
    running += 1;
    const problem = await ask(id, agent, method);
    running -= 1;
    waitingSince = running === 0 ? null : performance.now();
    longestMs = Math.max(longestMs, performance.now() - startMs);
    if (problem === null) done += 1;
    else {
      failed += 1;
      worker.failed.push(`${id} after ${Math.round(performance.now() - startMs)} ms: ${problem}`);
    }
    await sleep(options.pauseMs);
  }
}

/** Answers what was wrong; null: nothing. */
function ask(id: string, agent: Agent | false, method: string): Promise<string | null> {
  const { url, host, timeoutMs } = options;
  return new Promise((resolve) => {
    const headers = { host, 'x-request-id': id };
    const asked = request(url, { agent, method, headers, signal: AbortSignal.timeout(timeoutMs) });
    asked.on('error', (error) => resolve(String(error)));
    asked.on('response', (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (piece: string) => {
        text += piece;
      });
      response.on('error', (error) => resolve(String(error)));
      response.on('end', () => {
        const [answered, where = '-'] = text.split(' ');
        const isGood = response.statusCode === 200 && answered === id;
        if (isGood) node = where;
        resolve(isGood ? null : `${response.statusCode} ${text.slice(0, 100)}`);
      });
    });
    asked.end();
  });
}

function tell(line: LoadLine): Promise<void> {
  return new Promise((resolve) => process.stdout.write(`${JSON.stringify(line)}\n`, () => resolve()));
}

function report(): void {
  const waitedMs = waitingSince === null ? 0 : Math.round(performance.now() - waitingSince);
  void tell({ kind: 'tick', done, failed, node, longestMs: Math.round(longestMs), waitedMs });
}

process.stdin.resume().once('end', () => {
  isOver = true;
});
const workers: Worker[] = [];
const ends: Promise<void>[] = [];
for (let index = 0; index < options.keepAlive + options.fresh; index += 1) {
  const worker: Worker = { prefix: `${options.name}-${index}`, sent: 0, failed: [] };
  workers.push(worker);
  const agent = index < options.keepAlive ? new Agent({ keepAlive: true, maxSockets: 1 }) : false;
  // What may be sent twice by the proxy's leave, and what may not.
  ends.push(work(worker, agent, index % 2 === 0 ? 'GET' : 'POST'));
}
const ticking = setInterval(report, options.tickMs);
await Promise.all(ends);
clearInterval(ticking);
report();
// A pipe takes only so much at once.
await tell({ kind: 'end', workers });
process.exit();
