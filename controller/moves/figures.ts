import { Counter, Histogram, Registry } from 'prom-client';
import type { MoveDoc } from '../model/move.ts';
import { pauseMsOf } from '../model/move-summary.ts';

/** What Prometheus is told of moves whose end this controller has written. */
export type MoveFigures = {
  ended(doc: MoveDoc): void;
  /** In Prometheus's text format. */
  text(): Promise<string>;
};

const secondsBuckets = [0.5, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120];

export function createMoveFigures(): MoveFigures {
  const registry = new Registry();
  const moves = new Counter({
    name: 'flock_controller_moves_total',
    help: 'Moves whose end this controller has seen to',
    labelNames: ['cause', 'result'],
    registers: [registry],
  });
  const pauses = new Histogram({
    name: 'flock_controller_move_pause_seconds',
    help: 'How long requests waited for a service that was moved',
    buckets: secondsBuckets,
    registers: [registry],
  });
  return {
    ended(doc) {
      moves.inc({ cause: doc.cause, result: doc.step });
      const ms = pauseMsOf(doc);
      if (ms !== null && doc.services.length > 0) pauses.observe(ms / 1000);
    },
    text: () => registry.metrics(),
  };
}
