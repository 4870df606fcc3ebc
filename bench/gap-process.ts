import { Agent, request } from 'node:http';
import { createInterface } from 'node:readline';

/**
 * Asks one question after the other (URL and host name as arguments), each again at once where there is no good answer; each line on
 * standard input is answered with the longest time, in ms, from a good answer's end to that of the next one since the line before.
 */
const [url = '', host = ''] = process.argv.slice(2);
const pauseMs = 2;
let longestMs = 0;
let lastMs: number | null = null;

function ask(agent: Agent): Promise<boolean> {
  return new Promise((resolve) => {
    const asked = request(url, { agent, headers: { host }, timeout: 60_000 });
    asked.on('error', () => resolve(false));
    asked.on('response', (response) => {
      response.on('error', () => resolve(false));
      response.resume().on('end', () => resolve(response.statusCode === 200));
    });
    asked.end();
  });
}

createInterface({ input: process.stdin })
  .on('line', () => {
    const sinceMs = lastMs === null ? 0 : performance.now() - lastMs;
    process.stdout.write(`${Math.max(longestMs, sinceMs).toFixed(1)}\n`);
    longestMs = 0;
  })
  .on('close', () => process.exit());

let agent = new Agent({ keepAlive: true, maxSockets: 1 });
for (;;) {
  const isGood = await ask(agent);
  const nowMs = performance.now();
  if (isGood) {
    if (lastMs !== null) longestMs = Math.max(longestMs, nowMs - lastMs);
    lastMs = nowMs;
  } else {
    agent.destroy();
    agent = new Agent({ keepAlive: true, maxSockets: 1 });
  }
  await new Promise((resolve) => setTimeout(resolve, pauseMs));
}
