import assert from 'node:assert/strict';
import type { Docker } from '../../packaging/docker.ts';
import { image } from '../../packaging/proof.ts';
import { removeProxy } from '../../packaging/proxy.ts';
import { type PluginHost, startPluginHost } from '../support/plugin-host.ts';
import { startProxy } from '../support/proxy-host.ts';
import { until } from '../support/until.ts';

/** On a host that is in no cluster, with nothing but labels and flockctl. */
describe('the proxy on one host', () => {
  let host: PluginHost | null = null;
  const flock = (): PluginHost => {
    if (host === null) throw new Error('the host did not start');
    return host;
  };
  const docker = (): Docker => ({ version: '', run: (args) => flock().docker(...args) });
  const serve = 'mkdir -p /www && echo "$1" > /www/index.html && exec httpd -f -p 8080 -h /www';
  const runWeb = (name: string, ...options: readonly string[]) =>
    flock().docker(
      'run',
      '-d',
      '--name',
      name,
      '--restart',
      'always',
      ...options,
      image,
      'sh',
      '-c',
      serve,
      'sh',
      name,
    );
  const ask = (host: string, ...more: readonly string[]) =>
    flock().host.run('curl', ['-sS', '--fail', '--max-time', '5', '-H', `Host: ${host}`, ...more, 'http://127.0.0.1/']);
  const served = (name: string, host: string) =>
    until(`${name} is served for ${host}`, 20_000, async () =>
      (await ask(host).catch(() => '')) === name ? true : undefined,
    );

  before(async () => {
    host = await startPluginHost('btrfs');
    assert.match(await startProxy(flock()), /flock-haproxy started, flock-proxy started, flock-controller started/);
  });
  after(async () => await host?.dispose());

  it('changes nothing when it is installed again', async () => {
    assert.match(
      await startProxy(flock()),
      /flock-haproxy is running, flock-proxy is running, flock-controller is running/,
    );
  });

  it('serves routes of labels and of flockctl', async () => {
    await runWeb('web', '--label', 'flock.service=web', '--label', 'flock.route=http://www.example.test -> 8080');
    await served('web', 'www.example.test');
    await flock().flockctl('route', 'add', 'http://*.example.test -> web:8080');
    await served('web', 'else.example.test');
    await assert.rejects(ask('example.org'), /404/);
    assert.match(await flock().flockctlError('route', 'add', 'http://*.example.test -> web:8080'), /route rm/);
    assert.match(await flock().flockctlError('route', 'add', 'gopher://a -> web:8080'), /no address/);
  });

  it('tells of labels with mistakes', async () => {
    await flock().docker('run', '-d', '--name', 'typo', '--label', 'flock.rout=http://a -> 1', image, 'sleep', '100');
    await until('the mistake is told', 10_000, async () =>
      /flock\.rout/.test(await flock().flockctl('proxy', 'status')) ? true : undefined,
    );
    await flock().docker('rm', '-f', 'typo');
  });

  it('counts requests, and is healthy', async () => {
    const get = (path: string) => flock().host.run('curl', ['-sS', '--fail', `http://127.0.0.1:4272${path}`]);
    assert.match(await get('/healthz'), /"docker":\s*"up"/);
    for (let count = 0; count < 100; count += 1) await ask('www.example.test');
    await until('requests of the route are counted', 10_000, async () =>
      /^flock_proxy_requests_total\{route="http:\/\/www.example.test",service="web",status="200"\} \d+/m.test(
        await get('/metrics'),
      )
        ? true
        : undefined,
    );
    assert.match(
      await get('/metrics'),
      /^flock_proxy_request_seconds_bucket\{le="1",route="http:\/\/www.example.test"/m,
    );
  });

  it('ends TLS with a certificate of flockctl', async () => {
    await flock().host.run('openssl', [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
      ...['-subj', '/CN=tls.example.test', '-addext', 'subjectAltName=DNS:tls.example.test'],
      ...['-keyout', `${flock().disk}/tls.key`, '-out', `${flock().disk}/tls.crt`],
    ]);
    const files = ['--cert', `${flock().disk}/tls.crt`, '--key', `${flock().disk}/tls.key`];
    await flock().flockctl('certificate', 'add', 'tls.example.test', ...files);
    await flock().flockctl('route', 'add', 'https://tls.example.test -> web:8080');
    await until('it is served over TLS', 20_000, async () => {
      const args = ['-sS', '--fail', '--max-time', '5', '--cacert', `${flock().disk}/tls.crt`];
      const to = ['--resolve', 'tls.example.test:443:127.0.0.1', 'https://tls.example.test/'];
      return (await flock()
        .host.run('curl', [...args, ...to])
        .catch(() => '')) === 'web'
        ? true
        : undefined;
    });
  });

  it('pauses, holds and releases', async () => {
    await flock().flockctl('service', 'pause', 'web', '--for', '20s');
    const held = ask('www.example.test', '--max-time', '20');
    await until('it is held', 10_000, async () => {
      const [service] = (await flock().json('service', 'ls')) as readonly {
        readonly inFlight: { readonly held: number };
      }[];
      return service?.inFlight.held === 1 ? true : undefined;
    });
    await flock().flockctl('service', 'release', 'web');
    assert.equal(await held, 'web');
  });

  it('is there again after a reboot', async () => {
    await flock().reboot();
    await served('web', 'www.example.test');
    await served('web', 'else.example.test');
  });

  it('is removed without a trace, and finds again what people have made', async () => {
    assert.deepEqual(await removeProxy(docker()), []);
    await assert.rejects(ask('www.example.test'));
    assert.ok(!(await flock().host.run('nft', ['list', 'tables'])).includes('flock'));
    assert.equal(await removeProxy(docker()), null);
    await startProxy(flock());
    await served('web', 'else.example.test');
  });
});
