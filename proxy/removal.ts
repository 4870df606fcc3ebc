import { rm } from 'node:fs/promises';
import { loadIdentity } from '../controller/cluster/files.ts';
import { createDockerSource } from '../controller/docker/source.ts';
import { messageOf } from '../controller/model/errors.ts';
import { openEmbeddedStore } from '../controller/store/embedded.ts';
import { openStore } from '../controller/store/opening.ts';
import { type Operation, storeLimits } from '../controller/store/store.ts';
import { createCommands } from '../plugin/exec.ts';
import { ownAlone } from './documents/home.ts';
import { inspectedSchema, readContainer } from './model/containers.ts';
import { proxyKeys } from './model/keys.ts';
import type { ProxyPaths } from './paths.ts';
import type { LocalPlace } from './stack/kernel/links.ts';
import { removeKernelLayer } from './stack/kernel/remove.ts';

/**
 * Takes away what the proxy of this node has left: its tables in the kernel and in containers, its files, and what it told the
 * others, so that they lead nobody here. What people have made (routes, links, certificates, settings) stays. Neither the proxy nor
 * HAProxy may run. Answers what could not be done.
 */
export async function removeTraces(paths: ProxyPaths): Promise<readonly string[]> {
  const problems: string[] = [];
  const attempt = (what: string, work: () => Promise<void>) =>
    work().catch((error: unknown) => void problems.push(`${what}: ${messageOf(error)}`));
  await attempt('the kernel’s tables', async () =>
    removeKernelLayer({
      commands: createCommands(),
      folder: paths.kernel,
      hostRoot: paths.hostRoot,
      containers: await runningContainers(paths.engineSocket),
    }),
  );
  await attempt('what the other nodes were told', () => removeDocuments(paths));
  await attempt('files', async () => {
    for (const path of [paths.saved, paths.haproxy, paths.gate, paths.apiSocket])
      await rm(path, { recursive: true, force: true });
  });
  return problems;
}

async function runningContainers(engineSocket: string): Promise<ReadonlyMap<string, LocalPlace>> {
  const docker = createDockerSource(engineSocket);
  const found = new Map<string, LocalPlace>();
  for (const { id } of await docker.list()) {
    const parsed = inspectedSchema.safeParse(await docker.inspect(id));
    // One that is just going has nothing to be removed.
    if (parsed.success) found.set(id, readContainer(parsed.data, '127.0.0.1'));
  }
  return found;
}

async function removeDocuments({ cluster, store: file }: ProxyPaths): Promise<void> {
  const identity = await loadIdentity(cluster);
  const node = identity === null ? (await ownAlone()).node : identity.name;
  const store =
    identity === null ? await openEmbeddedStore(file) : openStore(identity.storeAddress, identity.storeToken);
  try {
    const containers = await store.list(`${proxyKeys.containers}/${node}/`, { fresh: true });
    const keys = [proxyKeys.node(node), ...containers.map(({ key }) => key)];
    for (let index = 0; index < keys.length; index += storeLimits.operationsMax) {
      const batch = keys.slice(index, index + storeLimits.operationsMax);
      await store.transact(batch.map((key): Operation => ({ kind: 'delete', key })));
    }
  } finally {
    await store.close();
  }
}
