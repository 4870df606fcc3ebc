import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { addresses } from '../test/contract/proxy-kernel-net.ts';
import { type Ground, type Part, processors } from './proxy-ground.ts';
import { recordsOf } from './proxy-records.ts';
import type { Applied } from './proxy-stack-part.ts';
import { figureRow, ms, type Row } from './report.ts';

/** What a pause costs: in the gate alone on node `b`, and with HAProxy and the kernel before it on node `a`. */
const sides = {
  'gate alone': { host: 'b', port: 8080, service: 'far', layers: [] },
  'whole stack': { host: 'a', port: 8081, service: 'one', layers: ['kernel', 'haproxy'] },
} as const;
const backend = 8000;
const many = { wanted: 1_000, idle: 10_000 };
const pauseMs = 60_000;
/** Files that a process has open beside its connections. */
const otherFiles = 500;

export async function benchHold(ground: Ground): Promise<readonly Row[]> {
  const rows: Row[] = [];
  const files = await filesMax();
  for (const host of ['one', 'far'] as const)
    await ground.start({ host, processor: processors.others }, 'backend', backend);
  for (const name of ['gate alone', 'whole stack'] as const) {
    const thousand = await hold(ground, name, many.wanted, many.wanted);
    const tenThousand = await hold(ground, name, 100, Math.min(many.idle, Math.floor((files - otherFiles) / 2)));
    const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(0)} MB`;
    // Where a process may not have files enough for all of them, as many more as would be held take as much more.
    const perTenThousand = (bytes: number) => (bytes * many.idle) / tenThousand.held;
    const [own, all] = [tenThousand.own, tenThousand.own + tenThousand.others].map(perTenThousand);
    rows.push(
      figureRow(`${name}: ${thousand.held} held, release to last answer`, thousand.tookMs, ms, { max: 1_000 }),
      figureRow('of these failed', thousand.failed, String, { max: 0 }),
      figureRow(`${name}: ${tenThousand.held} held, release to last answer`, tenThousand.tookMs, ms, null),
      figureRow('of these failed', tenThousand.failed, String, { max: 0 }),
      figureRow(`memory (RSS) for each ${many.idle} held, the gate`, own ?? Number.NaN, megabytes, { max: 128e6 }),
    );
    if (tenThousand.others > 0)
      rows.push(figureRow('the same with HAProxy', all ?? Number.NaN, megabytes, { max: 128e6 }));
  }
  return rows;
}

/** HAProxy has two for each connection: the client's and the one to the gate. */
async function filesMax(): Promise<number> {
  const limits = await readFile('/proc/self/limits', 'utf8');
  return Number(/^Max open files +\d+ +(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY);
}

type Held = {
  readonly held: number;
  /** Bytes more than before. */
  readonly own: number;
  readonly others: number;
  readonly failed: number;
  readonly tookMs: number;
};
type Served = {
  readonly ok: number;
  readonly failed: number;
  readonly lastAtMs: number;
  /** How often each. */
  readonly reasons: Readonly<Record<string, number>>;
};

/** Holds some, to warm up, then all of them, one request per connection; with a proxy and clients of their own. */
async function hold(ground: Ground, side: keyof typeof sides, warmUp: number, count: number): Promise<Held> {
  const { host, port, service, layers } = sides[side];
  const flock = await ground.stack({ host, processor: processors.proxy }, ...layers);
  const clients = await ground.start(
    { host: 'client', processor: processors.others },
    'clients',
    addresses[host],
    port,
  );
  const apply = async (pausedUntilMs?: number) => {
    const more = pausedUntilMs === undefined ? {} : { pausedUntilMs };
    const routes = { [`http://:${port} -> ${backend}`]: 'web' };
    const apply = recordsOf(routes, { web: [addresses[service]] }, more);
    return (await flock.ask<{ readonly value: Applied }>({ apply })).value;
  };
  const round = async (wanted: number): Promise<Held> => {
    const before = await flock.bytes();
    await clients.ask({ connect: wanted });
    await apply(Date.now() + pauseMs);
    await clients.ask('send');
    const held = await heldOf(flock, wanted);
    const after = await flock.bytes();
    const served = clients.ask<Served>('wait');
    const { startedAtMs } = await apply();
    const { ok, failed, lastAtMs, reasons } = await served;
    for (const [reason, times] of Object.entries(reasons)) console.log(`${side}, ${wanted}: ${times} times ${reason}`);
    return {
      ...{ held, own: after.own - before.own, others: after.others - before.others },
      ...{ failed: failed + (wanted - ok - failed), tookMs: lastAtMs - startedAtMs },
    };
  };
  try {
    await apply();
    await round(warmUp);
    return await round(count);
  } finally {
    await clients.end();
    await flock.end();
  }
}

/** All of them, or how many there are after 10 s. */
async function heldOf(flock: Part, wanted: number): Promise<number> {
  let held = 0;
  for (let tries = 0; tries < 100 && held < wanted; tries += 1) {
    await sleep(100);
    held = (await flock.ask<{ readonly value: number }>({ held: 'web' })).value;
  }
  return held;
}
