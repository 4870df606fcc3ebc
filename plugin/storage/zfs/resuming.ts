import { FlockError, hasCode } from '../../../controller/model/errors.ts';
import type { DatasetId } from '../../../controller/model/names.ts';
import type { ReceiveRequest, ResumedSend, SendRequest } from '../storage.ts';
import { abandonArguments, datasetPath, estimateArguments, tokenArguments } from './arguments.ts';
import { reasonOf } from './errors.ts';
import type { Mounts } from './mounts.ts';
import { exactNumber, isResumeToken, parseEstimate, parseTokenTarget } from './parse.ts';
import type { Runner } from './runner.ts';
import type { Snapshots } from './snapshots.ts';

/** What there is around a stream: how large it will be, and what is left of one that was cut short. */
export type Resuming = {
  estimate(request: SendRequest): Promise<number | null>;
  tokenOf(id: DatasetId): Promise<string | null>;
  abandon(id: DatasetId): Promise<void>;
  /** A token comes from another host, and names any dataset of this pool. */
  requireTokenOf(request: ResumedSend): Promise<void>;
  /** How a stream is to be received: `resumes` if it is the rest of one. Abandons what can't be gone on with. */
  prepare(request: ReceiveRequest): Promise<{ readonly isResumable: boolean; readonly resumes: boolean }>;
};

export function createResuming(runner: Runner, mounts: Mounts, snapshots: Snapshots): Resuming {
  const { config } = runner;

  async function tokenOf(id: DatasetId): Promise<string | null> {
    if (!(await runner.support()).resumableReceive) return null;
    const path = datasetPath(config, id);
    try {
      const token = (await runner.get([tokenProperty], [path])).get(path)?.get(tokenProperty)?.value ?? '';
      return isResumeToken(token) ? token : null;
    } catch (error) {
      if (reasonOf(error) === 'missing') return null;
      throw error;
    }
  }

  async function abandon(id: DatasetId): Promise<void> {
    if ((await tokenOf(id)) !== null) await runner.zfs(abandonArguments(datasetPath(config, id)));
  }

  async function targetOf(token: string): Promise<string | null> {
    if (!isResumeToken(token)) return null;
    try {
      return parseTokenTarget(await runner.zfs(tokenArguments(token)));
    } catch (error) {
      // It is damaged, or of another pool, or its snapshot is gone.
      if (hasCode(error, 'storage-failed', 'snapshot-not-found', 'dataset-missing', 'stream-invalid')) return null;
      throw error;
    }
  }

  return {
    tokenOf,
    abandon,

    async estimate({ id, to, from }) {
      const { path } = await snapshots.find(id, to);
      if (from !== null) await snapshots.find(id, from);
      const support = await runner.support();
      if (support.sendEstimate) return parseEstimate(await runner.zfs(estimateArguments(support, path, from)));
      if (from !== null) return null;
      const found = (await runner.get(['referenced'], [path])).get(path) ?? new Map();
      return Number(exactNumber(path, found, 'referenced'));
    },

    async requireTokenOf({ id, token }) {
      if (!(await runner.support()).resumableReceive)
        throw new FlockError('not-supported', 'this zfs can not resume a stream: send it anew');
      const target = await targetOf(token);
      if (target?.startsWith(`${datasetPath(config, id)}@`) === true) return;
      throw new FlockError(
        'stream-invalid',
        `the token is not one that a stream of ${id} can go on with: abandon what was received and send it anew`,
        { id },
      );
    },

    async prepare({ id, resumable }) {
      const isResumable = resumable === true && (await runner.support()).resumableReceive;
      const resumes = (await tokenOf(id)) !== null;
      if (resumes) await mounts.requireUnmounted(id);
      if (resumes && !isResumable) await abandon(id);
      return { isResumable, resumes: resumes && isResumable };
    },
  };
}

const tokenProperty = 'receive_resume_token';
