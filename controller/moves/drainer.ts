import type { Logger } from 'pino';
import type { EventLog } from '../cluster/event-log.ts';
import { type DrainFacts, decideDrain, drainAgainMs, viewDrain } from '../model/drain.ts';
import { messageOf } from '../model/errors.ts';
import { groupOf } from '../model/move-group.ts';
import { limitsFor, planGroup } from '../model/move-plan.ts';
import type { DatasetId, NodeName } from '../model/names.ts';
import type { ClusterView } from '../program/view.ts';
import { createLatch } from '../store/latch.ts';
import { type BeginParts, beginMove, type Facts, readFacts } from './beginning.ts';
import { refuse } from './checks.ts';
import { copyAll } from './copying.ts';
import type { Mover } from './mover.ts';
import type { MoveTools } from './ports.ts';
import { estimatesOf, lackOfRoom } from './room.ts';

/** Empties its own node while that is being drained: begins moves, then hands over volumes that nothing uses. The rest is the mover's. */
export type Drainer = {
  /** What does not go on, beside what the store says. */
  problems(): readonly string[];
  /** Works until the signal fires. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
};

export type DrainerParts = {
  readonly tools: MoveTools;
  readonly mover: Pick<Mover, 'onChange'>;
  readonly view: Pick<ClusterView, 'seen' | 'onChange'>;
  readonly begin: BeginParts;
  readonly events: EventLog;
  readonly log: Logger;
};

const lookMs = 2_000;
const handOverMs = 20_000;
/** A volume that could not be handed over is tried again after that, and with other nodes first for so long. */
const againMs = drainAgainMs;
const otherMs = 600_000;

type Trouble = { readonly text: string; readonly untilBootMs: number };

export function createDrainer({ tools, mover, view, begin, events, log }: DrainerParts): Drainer {
  const { node, clock, plugin } = tools;
  const latch = createLatch();
  const troubles = new Map<string, Trouble>();
  /** Of volumes, and until when (boot clock). */
  const failed = new Map<DatasetId, Map<NodeName, number>>();
  let handing: Promise<void> | null = null;
  /** Null: not known since this process began, so that nothing is told twice. */
  let wasDone: boolean | null = null;

  const isDraining = () => view.seen()?.nodes.get(node)?.draining === true;

  async function look(signal: AbortSignal): Promise<void> {
    const facts = drainFacts(await readFacts(begin), clock.nowMs());
    for (const [key, { untilBootMs }] of troubles) if (clock.bootMs() >= untilBootMs) troubles.delete(key);
    const { moves, volumes } = decideDrain(node, { ...facts, failedTargets: failedTargets() });
    for (const { group, to } of moves) {
      // The group begins with what was made first, which may have done its work and be stopped by now.
      const first = group.find(({ wanted }) => wanted === 'running');
      if (first === undefined || troubles.has(first.id)) continue;
      await beginOne(first.name, first.id, to, signal);
    }
    const next = volumes.find(({ volume }) => !troubles.has(volume.id));
    if (next !== undefined && handing === null)
      handing = handOne(next.volume.id, next.volume.name, next.to, signal).finally(() => {
        handing = null;
        latch.open();
      });
    tellEnd(facts);
  }

  async function beginOne(name: string, id: string, to: NodeName, signal: AbortSignal): Promise<void> {
    const plan = (facts: Facts) => {
      const target = facts.nodes.find((one) => one.name === to);
      const asked = facts.workloads.filter((one) => one.id === id && one.node === node && one.wanted === 'running');
      const isStill = facts.nodes.some((one) => one.name === node && one.draining);
      if (!isStill || target === undefined || asked.length === 0) throw new Error('it has changed meanwhile');
      const service = asked[0]?.service ?? name;
      return planGroup({ service, asked, target, limits: limitsFor(groupOf(asked, facts.workloads)) }, facts);
    };
    try {
      await beginMove(begin, 'drain', plan, signal);
    } catch (error) {
      trouble(id, `${name}: ${messageOf(error)}`);
    }
  }

  async function handOne(id: DatasetId, name: string, to: NodeName, signal: AbortSignal): Promise<void> {
    const ended = new AbortController();
    const stop = view.onChange(() => {
      if (!isDraining()) ended.abort(new Error('it is not drained any more'));
    });
    const both = AbortSignal.any([signal, ended.signal]);
    const copied = { volumes: [{ name }], to };
    try {
      refuse(await lackOfRoom(tools, to, await estimatesOf(tools, copied, both)));
      await copyAll(tools, copied, async () => undefined, both);
      await plugin.handOver({ to, volumes: [name], operations: [], deadlineMs: handOverMs }, both);
      log.info({ event: 'drain.volume', volume: name, to }, 'an idle volume was handed over');
    } catch (error) {
      if (both.aborted) return;
      trouble(id, `volume ${name}: ${messageOf(error)}`);
      failed.set(id, new Map(failed.get(id)).set(to, clock.bootMs() + otherMs));
    } finally {
      stop();
    }
  }

  function failedTargets(): ReadonlyMap<DatasetId, ReadonlySet<NodeName>> {
    const isLate = ([, untilBootMs]: readonly [NodeName, number]) => clock.bootMs() < untilBootMs;
    for (const [id, nodes] of failed) failed.set(id, new Map([...nodes].filter(isLate)));
    return new Map([...failed].map(([id, nodes]) => [id, new Set(nodes.keys())]));
  }

  function trouble(key: string, text: string): void {
    log.warn({ event: 'drain.trouble', reason: text }, 'tried again later');
    troubles.set(key, { text, untilBootMs: clock.bootMs() + againMs });
  }

  function tellEnd(facts: DrainFacts): void {
    const { done, stays } = viewDrain(node, facts, { startedAtMs: null, problems: [] });
    const rest = stays.length === 0 ? '' : `; what stays there: ${stays.join(', ')}`;
    if (done && wasDone === false)
      events.tell('drain-done', node, `nothing has to leave ${node} any more: it may be rebooted${rest}`);
    wasDone = done;
  }

  return {
    problems: () => [...troubles.values()].map(({ text }) => text),
    async run(signal) {
      const stops = [
        view.onChange(() => isDraining() && latch.open()),
        mover.onChange(() => isDraining() && latch.open()),
      ];
      const tick = async () => {
        while (!signal.aborted) {
          await clock.sleep(lookMs, signal);
          latch.open();
        }
      };
      const work = async () => {
        while (await latch.pass(signal)) {
          if (!isDraining()) {
            troubles.clear();
            failed.clear();
            wasDone = null;
            continue;
          }
          await look(signal).catch((error: unknown) => {
            log.debug({ event: 'drain.failed', reason: messageOf(error) }, 'tried again');
          });
          // What comes together is decided together.
          await clock.sleep(settleMs, signal);
        }
      };
      try {
        await Promise.all([tick(), work()]);
        await handing;
      } finally {
        for (const stop of stops) stop();
      }
    },
  };
}

const settleMs = 200;

export function drainFacts(facts: Facts, nowMs: number): DrainFacts {
  return { ...facts, moves: facts.moves.map(({ doc }) => doc), nowMs };
}
