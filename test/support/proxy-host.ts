import { healthPort, installProxy } from '../../packaging/proxy.ts';
import type { PluginHost } from './plugin-host.ts';

/** Starts what is missing of the proxy on a host, and waits until it is well; answers what was done. */
export function startProxy({ host, docker }: Pick<PluginHost, 'host' | 'docker'>): Promise<string> {
  const question = `
    const signal = AbortSignal.timeout(2_000);
    const { ok } = await fetch('http://127.0.0.1:${healthPort}/healthz', { signal });
    process.exit(ok ? 0 : 1);`;
  const isHealthy = () =>
    host.run(process.execPath, ['--input-type=module', '-e', question]).then(
      () => true,
      () => false,
    );
  return installProxy({ version: '', run: (args) => docker(...args) }, isHealthy);
}
