/** Programs of Debian's that containers of tests run. Pure. */

export type App = {
  /** Of the image. */
  readonly name: string;
  /** Debian's packages: the programs', and those of their libraries that apt itself does not need. */
  readonly packages: readonly string[];
  /** They stay where the packages have them, as does what they look for from there. */
  readonly programs: readonly string[];
  /** Files and folders. */
  readonly keeps: readonly string[];
  /** By path. */
  readonly files: Readonly<Record<string, string>>;
  readonly command: readonly string[];
};

/** Nobody's name on this machine. The container's files are its own by the volume's options. */
export const appUser = 2_000;
/** Of `docker volume create`. */
export const appVolumeOptions = [`uid=${appUser}`, `gid=${appUser}`];
/** Of `docker run`. */
export const appUserOption = `--user=${appUser}:${appUser}`;

const passwd = `root:x:0:0:root:/:/bin/sh\napp:x:${appUser}:${appUser}:app:/tmp:/bin/sh\n`;

/** The files of a first start come into their place in one step, so that one that was killed in between begins anew. */
const firstStart = (folder: string, make: string) => `
if [ ! -d ${folder} ]; then
  rm -rf ${folder}.new
  ${make}
  sync
  mv ${folder}.new ${folder}
fi`;

export const postgresPrograms = '/usr/lib/postgresql/15/bin';

/** Port 5432. Stopped by SIGINT: at SIGTERM it waits for its clients. It listens before it is ready; `select 1` tells. */
export const postgres: App = {
  name: 'flock/postgres:15',
  packages: [
    ...['postgresql-15', 'postgresql-client-15', 'libpq5', 'libreadline8', 'libicu72', 'libxml2', 'libssl3'],
    ...['libldap-2.5-0', 'libsasl2-2', 'libgssapi-krb5-2', 'libkrb5-3', 'libk5crypto3', 'libkrb5support0'],
    ...['libcom-err2', 'libkeyutils1'],
  ],
  programs: ['postgres', 'initdb', 'psql'].map((name) => `${postgresPrograms}/${name}`),
  keeps: [
    ...['plpgsql', 'dict_snowball'].map((name) => `/usr/lib/postgresql/15/lib/${name}.so`),
    ...['postgres.bki', 'system_constraints.sql', 'system_functions.sql', 'system_views.sql', 'snowball_create.sql'],
    ...['information_schema.sql', 'sql_features.txt', 'postgresql.conf.sample', 'pg_hba.conf.sample'],
    ...[
      'pg_ident.conf.sample',
      'timezonesets',
      'tsearch_data',
      'extension/plpgsql.control',
      'extension/plpgsql--1.0.sql',
    ],
  ].map((name) => (name.startsWith('/') ? name : `/usr/share/postgresql/15/${name}`)),
  files: {
    '/etc/passwd': passwd,
    '/entry': `#!/bin/sh
set -e
PATH=${postgresPrograms}:$PATH
data=/data/postgres
${firstStart(
  '$data',
  `initdb --pgdata=$data.new --username=postgres --auth=trust --locale=C --encoding=UTF8 --no-sync --no-instructions
  echo 'host all all all trust' >> $data.new/pg_hba.conf`,
)}
exec postgres -D $data -c listen_addresses='*' -c unix_socket_directories=/tmp -c shared_buffers=16MB`,
  },
  command: ['/bin/sh', '/entry'],
};

/** Port 3306, without passwords. */
export const mariadb: App = {
  name: 'flock/mariadb:10.11',
  packages: [
    ...['mariadb-server-core', 'mariadb-client-core', 'libaio1', 'libnuma1', 'liburing2', 'libssl3'],
    ...['libedit2', 'libbsd0', 'libncurses6', 'libpcre2-8-0'],
  ],
  programs: ['/usr/sbin/mariadbd', '/usr/bin/mariadb'],
  keeps: ['english', 'charsets', 'mysql_system_tables.sql', 'mysql_performance_tables.sql'].map(
    (name) => `/usr/share/mysql/${name}`,
  ),
  files: {
    '/etc/passwd': passwd,
    '/entry': `#!/bin/sh
set -e
data=/data/mysql
options="--no-defaults --lc-messages-dir=/usr/share/mysql --innodb-use-native-aio=0 --innodb-log-file-size=8M
  --innodb-buffer-pool-size=32M --tmpdir=/tmp"
${firstStart(
  '$data',
  `mkdir $data.new
  { echo 'create database mysql;'; echo 'use mysql;'
    cat /usr/share/mysql/mysql_system_tables.sql /usr/share/mysql/mysql_performance_tables.sql
    echo 'create database test;'
  } | mariadbd $options --bootstrap --datadir=$data.new`,
)}
exec mariadbd $options --datadir=$data --bind-address=0.0.0.0 --socket=/tmp/mysql.sock --pid-file=/tmp/mysql.pid \\
  --skip-grant-tables --skip-name-resolve`,
  },
  command: ['/bin/sh', '/entry'],
};

/** Port 8080. Answers a request with the id that it carries (as test/support/cluster/counting.ts), and notes that on its volume. Stopped by SIGQUIT it ends what it does. */
export const nginx: App = {
  name: 'flock/nginx:1.22',
  packages: ['nginx', 'libssl3', 'libpcre2-8-0', 'libcrypt1'],
  programs: ['/usr/sbin/nginx'],
  keeps: [],
  files: {
    '/etc/passwd': passwd,
    '/etc/nginx.conf': `daemon off;
worker_processes 1;
pid /tmp/nginx.pid;
error_log stderr;
events { worker_connections 4096; }
http {
  log_format ids '$http_x_request_id';
  access_log /data/requests ids;
  keepalive_requests 1000000;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  server {
    listen 8080;
    location / { return 200 "$http_x_request_id -"; }
    location = /ready { access_log off; return 200 "ready"; }
  }
}`,
  },
  command: ['nginx', '-c', '/etc/nginx.conf', '-e', 'stderr'],
};

/** Port 6379. What it has acknowledged is on its volume. */
export const redis: App = {
  name: 'flock/redis:7',
  packages: ['redis-server', 'redis-tools', 'libatomic1', 'libjemalloc2', 'liblzf1', 'libssl3'],
  programs: ['/usr/bin/redis-server', '/usr/bin/redis-cli'],
  keeps: [],
  files: { '/etc/passwd': passwd },
  command: [
    ...['redis-server', '--dir', '/data', '--appendonly', 'yes', '--appendfsync', 'always', '--save', ''],
    ...['--protected-mode', 'no'],
  ],
};
