import assert from 'node:assert/strict';
import { path } from '../../controller/cli/client.ts';
import { formatFacts, formatTable } from '../../controller/cli/output.ts';

describe('flockctl output', () => {
  it('aligns columns and trims line ends', () => {
    const table = formatTable(
      [
        { name: 'db', size: '1 GiB' },
        { name: 'longer', size: '-' },
      ],
      [
        { title: 'NAME', value: (row) => row.name },
        { title: 'SIZE', value: (row) => row.size, right: true },
      ],
    );
    assert.equal(table, 'NAME     SIZE\ndb      1 GiB\nlonger      -\n');
  });

  it('prints titles alone when there are no rows', () =>
    assert.equal(formatTable([], [{ title: 'NAME', value: String }]), 'NAME\n'));
  it('aligns facts', () => assert.equal(formatFacts({ A: '1', Long: '2' }), 'A     1\nLong  2\n'));
  it('keeps odd names inside their path segment', () =>
    assert.equal(path`/v1/volumes/${'../a?b'}/x`, '/v1/volumes/..%2Fa%3Fb/x'));
});
