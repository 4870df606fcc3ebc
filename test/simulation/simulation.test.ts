import assert from 'node:assert/strict';
import { isShort } from '../support/short.ts';
import { breaks, mutations } from './mutations.ts';
import { runSeeds } from './seeds.ts';

const seedsOfTest = 1_000;
/** A seed of the controllers takes five times as long. */
const seedsOf = { plugins: 10_000, controllers: isShort ? 1_000 : 2_000 };
const first = Number(process.env['FROM'] || 1);

for (const simulation of ['plugins', 'controllers'] as const) {
  const seeds = Number(process.env['SEEDS'] || seedsOf[simulation]);
  describe(`a simulated cluster with real ${simulation}`, () => {
    for (let from = first; from < first + seeds; from += seedsOfTest) {
      const count = Math.min(seedsOfTest, first + seeds - from);
      it(`keeps what it promises, seeds ${from} to ${from + count - 1}`, async () => {
        const { failures } = await runSeeds({ of: simulation, from, count });
        const [seed] = failures;
        assert.ok(
          seed === undefined,
          `${failures.length} seeds failed, the first: ${seed?.failure}\nmake simulation OF=${simulation} FROM=${seed?.seed} SEEDS=1 TRACE=1`,
        );
      });
    }
  });
}

describe('the simulation finds', () => {
  for (const { name, of = 'plugins', from = 1, seedsMax, rules } of mutations) {
    it(name, async () => {
      const { failures } = await runSeeds({ of, from, count: seedsMax, mutation: name });
      const isFound = failures.some(({ failure }) => breaks(failure, rules));
      assert.ok(isFound, `no seed of ${seedsMax} failed by ${rules.join(' or ')}: ${failures[0]?.failure}`);
    });
  }
});
