import Docker from 'dockerode';

/**
 * Names of containers, for error texts only. The plugin must work while Docker's API does not answer (at Docker's own start it never
 * does), so a name that can't be had soon is given as its short id.
 */
export type Containers = { describe(containerId: string | null, pid: number): Promise<string> };

const answerMsMax = 1_500;

export function createContainers(socketPath: string): Containers {
  const docker = new Docker({ socketPath });
  return {
    async describe(containerId, pid) {
      if (containerId === null) return `process ${pid}`;
      const shortId = containerId.slice(0, 12);
      try {
        const found = await docker.getContainer(containerId).inspect({ abortSignal: AbortSignal.timeout(answerMsMax) });
        return `container ${found.Name.replace(/^\//, '')} (${shortId})`;
      } catch {
        return `container ${shortId}`;
      }
    },
  };
}
