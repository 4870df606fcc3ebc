import assert from 'node:assert/strict';
import { moveKeys, moveLimitsDefault } from '../../controller/model/move.ts';
import { planMove } from '../../controller/model/move-plan.ts';
import { workloadKeys } from '../../controller/model/workload.ts';
import { parseHandover } from '../../plugin/server/moving-api.ts';
import { facts, moveDoc, workload } from '../support/move-documents.ts';

const request = { service: 'web', to: 'n2', limits: moveLimitsDefault };

describe('the size of a move', () => {
  it('is one that the plugin takes in one transaction, or refused before anything is stopped', () => {
    const big = (bytes: number) => ({ create: { Env: [`A=${'é'.repeat(bytes / 2)}`] } });
    const planned = (count: number, bytes: number) =>
      planMove(
        request,
        facts({
          workloads: Array.from({ length: count }, (_, index) =>
            workload(`w${index}`, 'n1', { service: 'web', volumes: ['data'], spec: big(bytes) }),
          ),
        }),
      );
    for (const [count, bytes, isTaken] of [
      [20, 2_000, true],
      [52, 2_000, true],
      [53, 2_000, false],
      [2, 96_000, true],
      [3, 80_000, false],
    ] as const) {
      const { workloads, volumes, obstacles } = planned(count, bytes);
      assert.equal(obstacles.length === 0, isTaken, `${count} of ${bytes}: ${obstacles}`);
      if (!isTaken) continue;
      const index = '1';
      const members = workloads.map(({ id, name }) => ({ workload: id, name, sourceId: '', targetId: null }));
      const moved = moveDoc({ members, volumes });
      const body = {
        ...{ to: 'n2', volumes: volumes.map(({ name }) => name), deadlineMs: 20_000 },
        operations: [
          { key: moveKeys.move(moved.id), value: JSON.stringify(moved), index },
          ...workloads.map((doc) => ({ key: workloadKeys.workload(doc.id), value: JSON.stringify(doc), index })),
        ],
      };
      assert.equal(parseHandover(body).also.length, count + 1);
    }
  });
});
