import assert from 'node:assert/strict';
import {
  commandsOf,
  linesOf,
  outcomeOf,
  parseBackends,
  parseInfo,
  parseMap,
  parseMapFiles,
  parseProcesses,
  parseServers,
  parseSessions,
} from '../../proxy/stack/haproxy/commands.ts';

describe("HAProxy's command line", () => {
  it('escapes what would end a word or a command', () => {
    assert.equal(commandsOf.addEntry('/m', 'a.example/x;y\\z/', 'hr0'), 'add map /m a.example/x\\;y\\\\z/ hr0');
  });

  it('keeps lines short, and a long command alone', () => {
    const short = Array.from({ length: 500 }, (_, index) => `add map /m key-${index}.example/ hr0`);
    const lines = linesOf([...short, 'x'.repeat(5_000), 'last']);
    assert.deepEqual(lines.flat().length, 502);
    assert.ok(lines.slice(0, -2).every((line) => line.join('; ').length <= 4_000));
    assert.deepEqual(lines.at(-1), ['last']);
    assert.equal(lines.at(-2)?.length, 1);
    assert.deepEqual(linesOf([]), []);
  });

  it('tells answers apart', () => {
    assert.equal(outcomeOf(''), 'done');
    assert.equal(outcomeOf('New server registered.'), 'done');
    assert.equal(outcomeOf('Server still has connections attached to it, cannot remove it.'), 'busy');
    assert.equal(outcomeOf('No such server.'), 'refused');
    assert.equal(outcomeOf('Unknown map identifier. Please use #<id> or <file>.'), 'refused');
  });

  it('reads the processes, old ones apart', () => {
    const text = `#<PID>          <type>          <reloads>       <uptime>        <version>
1162            master          5 [failed: 1]   0d00h02m07s     2.6.12
# workers
1271            worker          0               0d00h00m00s     2.6.12
# old workers
1233            worker          3               0d00h00m43s     2.6.12
# programs
`;
    assert.deepEqual(parseProcesses(text), {
      reloads: 5,
      failed: 1,
      workers: [
        { pid: 1271, isOld: false },
        { pid: 1233, isOld: true },
      ],
    });
    assert.equal(parseProcesses('Unknown command'), null);
  });

  it('reads what a worker has', () => {
    assert.deepEqual(parseInfo('Name: HAProxy\nStopping: 1\nStart_time_sec: 17\ndescription: abc'), {
      description: 'abc',
      startedAtS: 17,
      isStopping: true,
    });
    assert.deepEqual(
      [...parseMap('0x55f545121630 a/ hr0\n0x55f5454576b0 b;c/ hl12')],
      [
        ['a/', 'hr0'],
        ['b;c/', 'hl12'],
      ],
    );
    assert.deepEqual(
      parseMapFiles("# id (file) description\n0 (/a/b.map) pattern loaded from file '/a/b.map'\n1 (/c.map) x"),
      ['/a/b.map', '/c.map'],
    );
    assert.deepEqual([...parseBackends('# name\nhr0\nhr0u')], ['hr0', 'hr0u']);
  });

  it('reads servers and counts', () => {
    const header = '# pxname,svname,qcur,scur,status,weight,';
    const rows = ['hr0,a,0,1,no check,1,', 'hr0,b,0,0,MAINT,1,'];
    assert.deepEqual(parseServers([header, ...rows].join('\n')), [
      { backend: 'hr0', name: 'a', isDisabled: false },
      { backend: 'hr0', name: 'b', isDisabled: true },
    ]);
    assert.equal(parseSessions('# pxname,svname,qcur,qmax,scur,smax\nhr0,BACKEND,0,0,7,9'), 7);
    assert.equal(parseSessions('# pxname,svname,qcur,qmax,scur,smax'), 0);
  });
});
