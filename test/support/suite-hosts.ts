import { type Backend, backends, type PluginHost, startPluginHost } from './plugin-host.ts';

/** Runs the same tests on one host of each backend; the host lives as long as the block. */
export function onEachBackend(
  title: string,
  tests: (flock: () => PluginHost, backend: Backend) => void,
  settings?: string,
): void {
  for (const backend of backends) {
    describe(`${title} (${backend})`, () => {
      let host: PluginHost | null = null;
      before(async () => {
        host = await startPluginHost(backend, settings);
      });
      after(async () => await host?.dispose());
      tests(() => {
        if (host === null) throw new Error('the host did not start');
        return host;
      }, backend);
    });
  }
}
