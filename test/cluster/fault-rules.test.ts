import assert from 'node:assert/strict';
import { cuts, oneWayCuts, renderFaults } from '../support/cluster/faults.ts';

describe('network faults as firewall rules', () => {
  const rulesOf = (text: string) => text.split('\n').filter((line) => line.endsWith(' drop'));

  it('cuts both ways between sets of hosts, never a host from itself', () => {
    const pairs = cuts([1], [2, 3]).map((fault) => (fault.kind === 'cut' ? [fault.from, fault.to] : null));
    assert.deepEqual(pairs, [
      [1, 2],
      [1, 3],
      [2, 1],
      [3, 1],
    ]);
    assert.deepEqual(oneWayCuts([1, 2], [2]), [{ kind: 'cut', from: 1, to: 2, ports: 'all' }]);
  });

  it('lets ARP through, and everything but Consul where only that is cut', () => {
    assert.deepEqual(rulesOf(renderFaults(oneWayCuts([1], [2]))), ['iifname p1 oifname p2 ether type != arp drop']);
    assert.deepEqual(rulesOf(renderFaults(oneWayCuts([1], [2], 'consul'))), [
      'iifname p1 oifname p2 meta l4proto { tcp, udp } th dport { 8300-8302, 8500 } drop',
      'iifname p1 oifname p2 meta l4proto { tcp, udp } th sport { 8300-8302, 8500 } drop',
    ]);
  });

  it('drops a share in both directions, and nothing without faults', () => {
    assert.deepEqual(rulesOf(renderFaults([{ kind: 'loss', host: 3, percent: 20 }])), [
      'iifname p3 numgen random mod 100 < 20 drop',
      'oifname p3 numgen random mod 100 < 20 drop',
    ]);
    assert.deepEqual(rulesOf(renderFaults([])), []);
  });
});
