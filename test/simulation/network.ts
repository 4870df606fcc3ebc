import { FlockError } from '../../controller/model/errors.ts';
import type { NodeName } from '../../controller/model/names.ts';
import type { PeerCalls, Peers } from '../../plugin/cluster/ports.ts';
import type { MemoryOptions } from '../../plugin/storage/memory.ts';
import type { MemoryStream } from '../../plugin/storage/memory-stream.ts';
import type { Gate } from './gate.ts';
import type { Host } from './host.ts';
import { createTransfers } from './transfers.ts';
import type { World } from './world.ts';

/** Between the nodes: latency, loss, cuts in one direction or both. Connections break when the process at the other end dies. */
export type Network = {
  peersOf(host: Host, gate: Gate): Peers;
  streamsOf(host: Host): NonNullable<MemoryOptions['streams']>;
  /** Nothing passes from one to the other until the answer is called. */
  cut(from: NodeName, to: NodeName): () => void;
  isCut(from: NodeName, to: NodeName): boolean;
  /** From now on nothing is lost, delayed or repeated any more. */
  calm(): void;
  isCalm(): boolean;
  /** Runs at the other end after the way there; `lost` where the way is cut or the machine is off (nobody says so), `refused` without a process. */
  pass(from: Host, to: Host, arrive: (gate: Gate) => void, refused?: () => void): void;
};

export type Stream = MemoryStream;

const lossShare = 0.01;
const slowShare = 0.03;

export function createNetwork(world: () => World): Network {
  const cuts = new Map<string, number>();
  let isCalm = false;

  function latencyMs(): number {
    const { random } = world();
    return !isCalm && random.chance(slowShare) ? random.between(50, 3_000) : random.between(0.2, 15);
  }

  const network: Network = {
    cut(from, to) {
      const key = `${from}>${to}`;
      cuts.set(key, (cuts.get(key) ?? 0) + 1);
      return () => {
        const left = (cuts.get(key) ?? 1) - 1;
        if (left === 0) cuts.delete(key);
        else cuts.set(key, left);
      };
    },
    isCut: (from, to) => cuts.has(`${from}>${to}`),
    calm() {
      isCalm = true;
    },
    isCalm: () => isCalm,
    pass(from, to, arrive, refused) {
      const { scheduler, random } = world();
      if (!isCalm && random.chance(lossShare)) return;
      scheduler.after(latencyMs(), () => {
        if (network.isCut(from.name, to.name) || !to.isUp() || !from.isUp()) return;
        const gate = to.process()?.gate;
        if (gate === undefined) refused?.();
        else gate.deliver(() => arrive(gate));
      });
    },
    peersOf: (host, gate) => ({
      call: (node, name, ask, options) => call(host, gate, node, name, ask, options),
      forward: () => Promise.reject(new FlockError('not-supported', 'nothing is forwarded in the simulation')),
      transfer: transfers.transferOf(host, gate),
    }),
    streamsOf: (host) => transfers.streamsOf(host),
  };
  const transfers = createTransfers(world, network);

  function call<Name extends keyof PeerCalls>(
    host: Host,
    gate: Gate,
    node: NodeName,
    name: Name,
    ask: PeerCalls[Name]['ask'],
    { timeoutMs, signal }: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<PeerCalls[Name]['answer']> {
    const target = world().host(node);
    const sentAtMs = world().scheduler.nowMs();
    const gone = new AbortController();
    return new Promise((resolve, reject) => {
      let isSettled = false;
      const settle = (run: () => void) => {
        if (isSettled) return;
        isSettled = true;
        timer.cancel();
        signal.removeEventListener('abort', aborted);
        gate.deliver(run);
      };
      const give = (reason: string) => {
        settle(() => reject(new FlockError('node-unreachable', `${name} to ${node}: ${reason}`)));
        network.pass(host, target, (there) => there.isRunning() && gone.abort(new FlockError('caller-gone', reason)));
      };
      const aborted = () => give('the caller has given up');
      const timer = host.after(timeoutMs, () => give(`no answer in ${timeoutMs} ms`));
      if (signal.aborted) return aborted();
      signal.addEventListener('abort', aborted);
      const reset = () => network.pass(target, host, () => settle(() => reject(unreachable(node))));
      network.pass(
        host,
        target,
        (there) => {
          const agent = target.process()?.agent() ?? null;
          if (agent === null) return reset();
          there.onDeath(() => !isSettled && reset());
          there.pass(agent.answers[name](host.name, ask, gone.signal)).then(
            (answer) =>
              network.pass(target, host, () => {
                if (name === 'promise' && !isSettled) notePromise(host, node, answer as never, sentAtMs);
                settle(() => resolve(answer));
              }),
            (error: unknown) => network.pass(target, host, () => settle(() => reject(error))),
          );
        },
        reset,
      );
    });
  }

  return network;
}

function notePromise(host: Host, node: NodeName, { ids }: PeerCalls['promise']['answer'], atMs: number): void {
  for (const id of ids) {
    const promises = host.proofs.promises.get(id) ?? new Map<NodeName, number>();
    promises.set(node, atMs);
    host.proofs.promises.set(id, promises);
  }
}

export function unreachable(node: NodeName): FlockError {
  return new FlockError('node-unreachable', `node ${node} does not answer`);
}
