import { installProxy } from '../../packaging/proxy.ts';
import type { PluginHost } from './plugin-host.ts';

/** Starts what is missing of the proxy and the controller on a host, and waits until they are well; answers what was done. */
export function startProxy({ host, docker }: Pick<PluginHost, 'host' | 'docker'>): Promise<string> {
  const question = (port: number) => `
    const signal = AbortSignal.timeout(2_000);
    const { ok } = await fetch('http://127.0.0.1:${port}/healthz', { signal });
    process.exit(ok ? 0 : 1);`;
  const isHealthy = (port: number) =>
    host.run(process.execPath, ['--input-type=module', '-e', question(port)]).then(
      () => true,
      () => false,
    );
  return installProxy({ version: '', run: (args) => docker(...args) }, isHealthy);
}
