import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { importApp } from '../../support/app-import.ts';
import {
  type App,
  appUserOption,
  appVolumeOptions,
  mariadb,
  postgres,
  postgresPrograms,
  redis,
} from '../../support/apps.ts';
import type { ClusterHost } from '../../support/cluster/cluster-host.ts';
import { createVolume, type Members } from '../../support/cluster/members.ts';
import { known, move } from '../../support/cluster/moving.ts';
import { until } from '../../support/until.ts';

/** FLOCK_DATABASE_MOVES: of each (`make cluster-moves`). */
const count = Number(process.env['FLOCK_DATABASE_MOVES'] || 2);

type Database = {
  readonly title: string;
  readonly app: App;
  readonly port: number;
  readonly run: readonly string[];
  /** Run by a client's shell: reads what `write` says. */
  readonly client: string;
  /** What commits the row $i, and has `acknowledged $i` printed when that is done. */
  readonly write: string;
  /** The same over a connection of its own, without the printing; fails unless it is done. */
  readonly writeOnce: string;
  /** Inside the database's own container: makes it ready for rows, and prints all of them, a line each. */
  readonly prepare: readonly string[];
  readonly rows: readonly string[];
};

const table = 'create table numbers (n integer primary key)';
const insert = 'insert into numbers values ($i)';
const select = 'select n from numbers';

const psql = `${postgresPrograms}/psql`;
const psqlClient = `${psql} -h 127.0.0.1 -U postgres -v ON_ERROR_STOP=1 -qAt`;
const psqlInside = [psql, '-h', '/tmp', '-U', 'postgres', '-qAtc'];

const mariadbClient = 'mariadb --skip-reconnect -h 127.0.0.1 -N -n test';
const mariadbInside = ['mariadb', '-S', '/tmp/mysql.sock', '-N', 'test', '-e'];

const databaseKinds: readonly Database[] = [
  {
    title: 'PostgreSQL',
    app: postgres,
    port: 5432,
    run: [
      ...['--stop-signal', 'SIGINT', '--stop-timeout', '10', '--health-interval', '300ms', '--health-cmd'],
      `${psql} -h /tmp -U postgres -qAtc "select 1"`,
    ],
    client: psqlClient,
    write: `echo "${insert};" && echo "\\\\echo acknowledged $i"`,
    writeOnce: `${psqlClient} -c "${insert}"`,
    prepare: [...psqlInside, table],
    rows: [...psqlInside, select],
  },
  {
    title: 'MariaDB',
    app: mariadb,
    port: 3306,
    run: ['--stop-timeout', '20'],
    client: mariadbClient,
    write: `echo "${insert}; select 'acknowledged $i';"`,
    writeOnce: `${mariadbClient} -e "${insert}"`,
    prepare: [...mariadbInside, table],
    rows: [...mariadbInside, select],
  },
  {
    title: 'Redis',
    app: redis,
    port: 6379,
    run: ['--health-interval', '300ms', '--health-cmd', 'redis-cli ping | grep -q PONG'],
    client: 'redis-cli -h 127.0.0.1',
    write: `echo "eval \\"redis.call('sadd','numbers',ARGV[1]) return 'acknowledged '..ARGV[1]\\" 0 $i"`,
    writeOnce: 'redis-cli -e -h 127.0.0.1 sadd numbers $i',
    prepare: ['redis-cli', 'ping'],
    rows: ['redis-cli', 'smembers', 'numbers'],
  },
];

/**
 * Commits rows over one connection for as long as it lasts, then over the next one. Numbers are not used again: nobody knows whether the
 * last row was committed.
 */
const streaming = ({ client, write }: Database) => `
base=0
while :; do
  base=$((base+1000000))
  i=$base
  while :; do
    i=$((i+1))
    ${write} || exit
    usleep 20000
  done 2>/dev/null | ${client} 2>&1
  echo closed
  usleep 100000
done`;

/** One row for each new connection. */
const reconnecting = ({ writeOnce }: Database) => `
i=500000000
while :; do
  i=$((i+1))
  ${writeOnce} 2>&1 && echo "acknowledged $i" || echo "failed $i"
  usleep 100000
done`;

/** A connection that found nobody, where it should have waited. */
const turnedAway = /refused|timed? ?out|starting up|no route|unreachable|can't connect|could not translate|loading/i;

export function databases(members: () => Members): void {
  const n = (number: number) => members().n(number);
  const logOf = async (host: ClusterHost, name: string) => (await host.docker('logs', name)).split('\n');
  const acknowledged = (lines: readonly string[]) =>
    lines.flatMap((line) => Number(/^acknowledged (\d+)$/.exec(line)?.[1] ?? Number.NaN) || []);

  describe('databases', () => {
    for (const database of databaseKinds)
      it(`${database.title}, moved ${count} times: every row that was acknowledged is there once, and new connections wait`, async function () {
        this.timeout(180_000 + count * 60_000);
        const { app, port, run, prepare, rows: allRows } = database;
        await importApp(n(1), app);
        await createVolume(n(1), 'db-data', appVolumeOptions);
        const mount = ['--volume-driver=flock', '-v', 'db-data:/data'];
        const labels = ['--label', 'flock.service=db'];
        await n(1).docker('run', '-d', '--name', 'db', appUserOption, ...run, ...labels, ...mount, app.name);
        await until('the database is there', 60_000, () =>
          n(1)
            .docker('exec', 'db', ...prepare)
            .catch(() => undefined),
        );
        await known(members(), n(1), 'db');
        const clients = { streaming: streaming(database), reconnecting: reconnecting(database) };
        for (const [name, script] of Object.entries(clients)) {
          const link = ['--label', `flock.link=${port} -> db:${port}`];
          await n(1).docker('run', '-d', '--name', name, ...link, '--stop-timeout', '1', app.name, 'sh', '-c', script);
        }
        const progress = async (name: string) => acknowledged(await logOf(n(1), name)).length;
        const goOn = async (name: string) => {
          const before = await progress(name);
          await until(`${name} has further rows acknowledged`, 60_000, async () =>
            (await progress(name)) > before + 5 ? true : undefined,
          );
        };
        for (const name of Object.keys(clients)) await goOn(name);
        const beforeMoves = (await logOf(n(1), 'reconnecting')).length;

        let at = 1;
        for (let index = 0; index < count; index += 1) {
          at = (at % members().cluster.hosts.length) + 1;
          await move(members(), n(1), 'db', n(at));
          for (const name of Object.keys(clients)) await goOn(name);
          await sleep(500);
        }

        const lines = await Promise.all(Object.keys(clients).map((name) => logOf(n(1), name)));
        for (const name of Object.keys(clients)) await n(1).docker('stop', '-t', '1', name);
        const rows = (await n(at).docker('exec', 'db', ...allRows)).split('\n').map(Number);
        assert.equal(new Set(rows).size, rows.length);
        const there = new Set(rows);
        const all = lines.flatMap(acknowledged);
        assert.ok(all.length > count * 20, `${all.length} rows`);
        assert.deepEqual(
          all.filter((number) => !there.has(number)),
          [],
          'acknowledged, but not there',
        );
        const opened = (lines[1] ?? []).slice(beforeMoves);
        assert.deepEqual(
          opened.filter((line) => turnedAway.test(line)),
          [],
        );
        // One is open when a move begins, and is closed if it does not end by itself while it is drained.
        const failed = opened.filter((line) => /^failed \d+$/.test(line));
        assert.ok(failed.length <= count, opened.join('\n'));
      });
  });
}
