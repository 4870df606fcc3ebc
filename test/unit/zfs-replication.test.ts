import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseDatasetId, parseSnapshotName } from '../../controller/model/names.ts';
import { CommandError, type Commands } from '../../plugin/exec.ts';
import { createMarks } from '../../plugin/storage/zfs/marks.ts';
import { createRunner } from '../../plugin/storage/zfs/runner.ts';
import { createZfs, type ZfsConfig } from '../../plugin/storage/zfs/zfs.ts';
import { rejects } from '../support/refuses.ts';

const config: ZfsConfig = {
  prefix: 'flock/volumes',
  poolFile: null,
  mountRoot: '/mnt/flock/volumes',
  daemonMountRoot: '/var/lib/flock/mnt',
  variant: 'openzfs',
  tools: { zfs: 'zfs', zpool: 'zpool', mount: 'mount', umount: 'umount' },
};
const id = parseDatasetId('db.0a1b2c3d');
const other = parseDatasetId('db.00000001');
const [s1, s2] = [parseSnapshotName('s1'), parseSnapshotName('s2')];
const never = new AbortController().signal;

type Answer = string | { readonly error: string };

/** OpenZFS 2.1 as its usage texts say, with answers to commands by what these begin with. */
function fakeZfs(answers: readonly (readonly [string, () => Answer])[]) {
  const calls: string[] = [];
  const usage = (name: string) =>
    readFileSync(join(import.meta.dirname, 'zfs-usage', `openzfs-2.1.${name}.txt`), 'utf8');
  const answer = (file: string, args: readonly string[]): Answer => {
    const line = [file, ...args].join(' ');
    if (args.length === 0) return usage(file);
    if (args.length === 1 && args[0] === 'get') return usage(`${file}-get`);
    if (args[0] === 'list') return file === 'zpool' ? 'flock\tONLINE\toff' : config.prefix;
    calls.push(line);
    return answers.find(([start]) => line.startsWith(start))?.[1]() ?? '';
  };
  const run: Commands['run'] = async (file, args) => {
    const text = answer(file, args);
    if (typeof text === 'string') return text;
    throw new CommandError({ file, args, exitCode: 1, stderr: text.error, timedOut: false, reason: 'exit status 1' });
  };
  const commands: Commands = {
    run,
    stream: async (file, args) => {
      calls.push([file, ...args].join(' '));
    },
  };
  return { storage: createZfs(config, commands), marks: createMarks(createRunner(config, commands)), calls };
}

const property = (path: string, name: string, value: string) => `${path}\t${name}\t${value}\t-`;

function sizes(path: string, used: number, written: number): string {
  return [
    property(path, 'used', String(used)),
    property(path, 'referenced', '1000'),
    property(path, 'usedbysnapshots', '0'),
    property(path, 'written', String(written)),
  ].join('\n');
}

const facts = (path: string) =>
  [
    ['guid', '1'],
    ['createtxg', '1'],
    ['creation', '1'],
    ['used', '0'],
    ['userrefs', '0'],
  ]
    .map(([name = '', value = '']) => property(path, name, value))
    .join('\n');

const lookAtSizes = 'zfs get -H -p -o name,property,value,source -- used,referenced,usedbysnapshots,written';
const lookAtAll = lookAtSizes.replace('-p', '-p -r -d 1');
const lookAtSnapshot =
  'zfs get -H -p -o name,property,value,source -- guid,createtxg,creation,used,userrefs,defer_destroy,flock:holds';
const lookAtToken = 'zfs get -H -p -o name,property,value,source -- receive_resume_token';

describe('content marks on OpenZFS', () => {
  it('take a sync of the pool and one look, and rest while nothing is written', async () => {
    const path = `flock/volumes/${id}`;
    let now = sizes(path, 5000, 3000);
    const { marks, calls } = fakeZfs([[lookAtSizes, () => now]]);
    const look = async () => (await marks.of([id])).get(id);
    const first = await look();
    assert.deepEqual(calls, ['zpool sync flock', `${lookAtSizes} ${path}`]);
    assert.notEqual(await look(), first);
    const mark = marks.taken(id);
    now = sizes(path, 5000, 0);
    assert.deepEqual([await look(), await look()], [mark, mark]);
    now = sizes(path, 5000, 1);
    assert.notEqual(await look(), mark);
    now = sizes(path, 5001, 0);
    assert.notEqual(await look(), mark);
  });

  it('are new after a snapshot was destroyed', async () => {
    const path = `flock/volumes/${id}`;
    const { marks } = fakeZfs([[lookAtSizes, () => sizes(path, 5000, 0)]]);
    await marks.of([id]);
    const mark = marks.taken(id);
    assert.equal((await marks.of([id])).get(id), mark);
    marks.forget(id);
    assert.notEqual((await marks.of([id])).get(id), mark);
  });

  it('of many are read with one command, and so are those of which one is missing', async () => {
    const many = Array.from({ length: 101 }, (_, index) => parseDatasetId(`v.${String(index).padStart(8, '0')}`));
    const all = sizes(`flock/volumes/${many[0]}`, 1, 1);
    const { storage, calls } = fakeZfs([
      [lookAtAll, () => all],
      [lookAtSizes, () => ({ error: `cannot open 'x': dataset does not exist` })],
    ]);
    assert.deepEqual([...(await storage.contentMarks(many)).keys()], [many[0]]);
    assert.deepEqual(calls, ['zpool sync flock', `${lookAtAll} flock/volumes`]);
    assert.equal((await storage.contentMarks(many.slice(0, 2))).size, 1);
    assert.equal(calls.at(-1), `${lookAtAll} flock/volumes`);
    assert.equal((await storage.contentMarks([other])).size, 0);
  });
});

describe('streams of OpenZFS', () => {
  const token = '1-e604ea4bf-e0-789c63a2';
  const contents = (dataset: string) => `resume token contents:\nnvlist version: 0\n\ttoname = ${dataset}@s2\n`;

  it('are estimated by a dry run', async () => {
    const path = `flock/volumes/${id}`;
    const { storage, calls } = fakeZfs([
      [lookAtSnapshot, () => `${facts(`${path}@s2`)}\n${facts(`${path}@s1`)}`],
      ['zfs send -n', () => 'incremental\ts1\tflock/volumes/x@s2\t1234\nsize\t1234'],
    ]);
    assert.equal(await storage.estimate({ id, to: s2, from: s1 }), 1234);
    assert.equal(calls.at(-1), `zfs send -n -P -L -e -c -i @s1 -- ${path}@s2`);
  });

  it('go on by a token for this dataset only', async () => {
    const { storage, calls } = fakeZfs([['zfs send -n -v -t', () => contents(`flock/volumes/${id}`)]]);
    await storage.send({ id, token }, 1, never);
    assert.deepEqual(calls, [`zfs send -n -v -t ${token}`, `zfs send -t ${token}`]);
    await rejects(storage.send({ id: other, token }, 1, never), 'stream-invalid');
    await rejects(storage.send({ id, token: '-F' }, 1, never), 'stream-invalid');
    assert.equal(calls.at(-1), `zfs send -n -v -t ${token}`);
    const damaged = fakeZfs([['zfs send', () => ({ error: 'cannot resume send: resume token is corrupt' })]]);
    await rejects(damaged.storage.send({ id, token }, 1, never), 'stream-invalid');
  });

  it('that were cut short leave a token, which can be abandoned', async () => {
    const path = `flock/volumes/${id}`;
    let found = token;
    const { storage, calls } = fakeZfs([[lookAtToken, () => property(path, 'receive_resume_token', found)]]);
    assert.equal(await storage.resumeToken(id), token);
    await storage.abandonReceive(id);
    assert.equal(calls.at(-1), `zfs receive -A -- ${path}`);
    found = '-';
    assert.equal(await storage.resumeToken(id), null);
    await storage.abandonReceive(id);
    assert.equal(calls.at(-1), `${lookAtToken} ${path}`);
  });
});
