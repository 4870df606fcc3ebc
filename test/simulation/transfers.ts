import { FlockError } from '../../controller/model/errors.ts';
import type { Peers, Transfer } from '../../plugin/cluster/ports.ts';
import type { MemoryOptions } from '../../plugin/storage/memory.ts';
import type { MemoryStream } from '../../plugin/storage/memory-stream.ts';
import type { Gate } from './gate.ts';
import type { Host } from './host.ts';
import type { Network } from './network.ts';
import type { World } from './world.ts';

/** Streams of snapshots: they take time, break in the middle, and come again when nobody expects them any more. */
export type Transfers = {
  transferOf(host: Host, gate: Gate): Peers['transfer'];
  streamsOf(host: Host): NonNullable<MemoryOptions['streams']>;
};

type Pipe = {
  stream: MemoryStream | null;
  readonly arrived: Promise<MemoryStream>;
  arrive(stream: MemoryStream): void;
  break(reason: string): void;
};

const breakShare = 0.05;
const repeatShare = 0.04;
/** Less than the real one (plugin/peer), for a run would last as long as that. */
const stallMsMax = 8_000;

export function createTransfers(world: () => World, network: Network): Transfers {
  /** What file descriptors are to the real backends. */
  const pipes = new Map<number, Pipe>();
  /** What each process sends, and to whom. */
  const running = new WeakMap<Gate, Set<string>>();
  let last = 0;

  /** Answers what is to be called at its end. */
  function noteRunning(host: Host, gate: Gate, node: string, { doc }: Transfer): () => boolean {
    const all = running.get(gate) ?? new Set();
    running.set(gate, all);
    const key = `${doc.id} to ${node}`;
    if (all.has(key)) world().checks.violate('one stream to a copy', `${host.name} sends ${key} twice at once`);
    all.add(key);
    return () => all.delete(key);
  }

  function openPipe(): number {
    const { promise, resolve, reject } = Promise.withResolvers<MemoryStream>();
    promise.catch(() => undefined);
    last += 1;
    pipes.set(last, {
      stream: null,
      arrived: promise,
      arrive: resolve,
      break: (reason) => reject(new FlockError('stream-invalid', reason)),
    });
    return last;
  }

  function pipe(descriptor: number): Pipe {
    const found = pipes.get(descriptor);
    if (found === undefined) throw new Error(`simulation: there is no descriptor ${descriptor}`);
    return found;
  }

  function streamMs(): number {
    const { random } = world();
    return !network.isCalm() && random.chance(0.1) ? random.between(200, 6_000) : random.between(2, 60);
  }

  /** The receiving end: `begin` is told when it has said that it is ready. */
  function receive(
    from: Host,
    to: Host,
    gate: Gate,
    transfer: Transfer,
    descriptor: number,
    begin: () => void,
  ): Promise<void> {
    const agent = to.process()?.agent() ?? null;
    if (agent === null) return Promise.reject(new FlockError('not-ready', 'this node is not ready yet'));
    const broken = new AbortController();
    gate.onDeath(() => pipe(descriptor).break('the receiver was killed'));
    return agent.receive(
      from.name,
      transfer,
      (read) => {
        begin();
        return read(descriptor, broken.signal);
      },
      broken.signal,
    );
  }

  /** The same header and bytes once more, later: nobody waits for the answer. */
  function repeat(from: Host, to: Host, transfer: Transfer, stream: MemoryStream): void {
    const { scheduler, random, trace } = world();
    scheduler.after(random.between(100, 12_000), () => {
      const gate = to.process()?.gate;
      if (network.isCalm() || gate === undefined) return;
      gate.deliver(() => {
        trace(() => `${to.name}: ${transfer.doc.id}@${transfer.to} from ${from.name} comes again`);
        const descriptor = openPipe();
        pipe(descriptor).arrive(stream);
        gate.pass(receive(from, to, gate, transfer, descriptor, () => undefined)).catch(() => undefined);
      });
    });
  }

  return {
    streamsOf: () => ({
      async write(stream, descriptor) {
        pipe(descriptor).stream = stream;
      },
      read(descriptor, signal) {
        const { arrived } = pipe(descriptor);
        return new Promise((resolve, reject) => {
          const aborted = () => reject(new FlockError('stream-invalid', 'the transfer was cancelled'));
          if (signal.aborted) return aborted();
          signal.addEventListener('abort', aborted);
          arrived.then(resolve, reject);
        });
      },
    }),

    transferOf: (host, gate) => (node, transfer, onProgress, signal) => {
      const { scheduler, random, checks } = world();
      const target = world().host(node);
      const descriptor = openPipe();
      const hasEnded = signal.aborted ? () => false : noteRunning(host, gate, node, transfer);
      return new Promise<void>((resolve, reject) => {
        let isSettled = false;
        const settle = (run: () => void) => {
          if (isSettled) return;
          isSettled = true;
          hasEnded();
          stall.cancel();
          signal.removeEventListener('abort', aborted);
          gate.deliver(run);
        };
        const fail = (reason: string) => {
          settle(() => reject(new FlockError('node-unreachable', `the stream to node ${node} broke: ${reason}`)));
          scheduler.after(random.between(0, 50), () => pipe(descriptor).break(reason));
        };
        const aborted = () => fail('the sender has given up');
        const stall = host.after(stallMsMax, () => fail(`nothing came for ${stallMsMax} ms`));
        gate.onDeath(() => pipe(descriptor).break('the sender was killed'));
        if (signal.aborted) return aborted();
        signal.addEventListener('abort', aborted);

        /** The receiver is ready; the sender's command runs and the data flows. */
        const flow = () => {
          const { id } = transfer.doc;
          const process = host.process();
          if (process === null || process.gate !== gate || isSettled) return;
          const sending = process.context.storage.send(
            { id, to: transfer.to, from: transfer.from },
            descriptor,
            signal,
          );
          sending.then(
            () => {
              const { stream } = pipe(descriptor);
              if (stream === null) return fail('nothing was sent');
              if (!network.isCalm() && random.chance(repeatShare)) repeat(host, target, transfer, stream);
              const isBreaking = !network.isCalm() && random.chance(breakShare);
              scheduler.after(streamMs(), () =>
                network.pass(host, target, () => {
                  onProgress(1);
                  if (isBreaking) fail('the connection was lost');
                  else pipe(descriptor).arrive(stream);
                }),
              );
            },
            (error: unknown) => {
              settle(() => reject(error));
              pipe(descriptor).break('the sender has failed');
            },
          );
        };

        network.pass(
          host,
          target,
          (there) => {
            there.onDeath(() => fail('the connection was reset'));
            there.pass(receive(host, target, there, transfer, descriptor, () => network.pass(target, host, flow))).then(
              () => {
                checks.replicated(transfer.doc.id);
                network.pass(target, host, () => settle(resolve));
              },
              (error: unknown) => network.pass(target, host, () => settle(() => reject(error))),
            );
          },
          () => fail('the connection was refused'),
        );
      });
    },
  };
}
