import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { DatasetId } from '../../controller/model/names.ts';
import { hostProcesses, type Processes } from '../../plugin/processes.ts';
import { createUsers, rootMountOf } from '../../plugin/users.ts';
import { until } from '../support/until.ts';

const sys = '24 29 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw';
const root = '29 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw';
const volume = '77 29 0:52 /volumes/data.00000001 /mnt/look rw,relatime shared:9 - btrfs /dev/loop0 rw';
const text = (...lines: readonly string[]) => `${lines.join('\n')}\n`;

describe('mount tables', () => {
  it('are told to be of one namespace, whatever is mounted there meanwhile', () => {
    const before = text(sys, root, volume);
    const after = text(sys, root, volume, '91 29 0:60 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw');
    assert.equal(rootMountOf(before), rootMountOf(after));
  });

  it('are told from a copy of the same mounts, and by the root that is on top', () => {
    const copy = text(sys.replace('24', '124'), root.replace('29', '129'), volume.replace('77', '177'));
    assert.notEqual(rootMountOf(text(sys, root, volume)), rootMountOf(copy));
    assert.equal(rootMountOf(text('2 1 0:2 / / rw - rootfs rootfs rw', root)), '29');
  });

  it('are as good as their text where the root is no mount', () => {
    assert.notEqual(rootMountOf(text(sys)), rootMountOf(text(volume)));
    assert.equal(rootMountOf(''), '');
  });
});

type Fake = { readonly table: string; readonly cgroup?: string; state?: string };

const [db, web] = ['db.00000001', 'web.00000002'] as [DatasetId, DatasetId];
const ofHost = text(sys, root, '30 29 0:5 / /proc rw - proc proc rw');
const tableOf = (mount: number, ...ids: readonly DatasetId[]) =>
  text(
    `${mount} 1 0:60 / / rw - overlay overlay rw`,
    ...ids.map((id, index) => `${mount + 1 + index} ${mount} 0:45 / /data rw - zfs tank/flock/${id} rw`),
  );
const [first, second, outer] = ['a', 'b', 'c'].map((digit) => digit.repeat(64)) as [string, string, string];
const cgroup = (path: string) => `0::${path}\n`;

/** Processes that are nothing but what is told of them. Signals work as the kernel's do, and `onSignal` may change anything. */
function fakeHost(others: Record<number, Fake>, onSignal: (pid: number) => void = () => undefined) {
  const all = new Map<number, Fake>([[1, { table: ofHost }]]);
  for (const [pid, fake] of Object.entries(others)) all.set(Number(pid), fake);
  const events: string[] = [];
  const of = (process: number | 'self') => all.get(process === 'self' ? 1 : process);
  const processes: Processes = {
    all: async () => [...all.keys()],
    async mountInfo(process, isEnough) {
      const lines = (of(process)?.table ?? '').split(/(?<=\n)/);
      const end = lines.findIndex(isEnough);
      const told = end < 0 ? lines : lines.slice(0, end + 1);
      if (told.length === lines.length) events.push(`read ${process}`);
      return told.join('');
    },
    cgroup: async (process) => of(process)?.cgroup ?? cgroup('/'),
    state: async (pid) => of(pid)?.state ?? (all.has(pid) ? 'S' : ''),
    send(pid, signal) {
      events.push(`${signal} ${pid}`);
      const fake = all.get(pid);
      if (signal === 'SIGKILL') all.delete(pid);
      else if (fake !== undefined) fake.state = signal === 'SIGSTOP' ? 'T' : 'S';
      onSignal(pid);
    },
  };
  const signalled = (signal: string) => [
    ...new Set(events.flatMap((event) => (event.startsWith(`${signal} `) ? [Number(event.split(' ')[1])] : []))),
  ];
  return { users: createUsers([], processes), all, events, signalled };
}

describe('users of volumes', () => {
  const inFirst = (table: string): Fake => ({ table, cgroup: cgroup(`/docker/${first}`) });
  const inside: Fake = {
    table: tableOf(70),
    cgroup: cgroup(`/system.slice/docker-${first}.scope/docker/${'e'.repeat(64)}`),
  };

  it('are all processes of a container of which one shows the volume: chrooted ones, and containers inside', async () => {
    const { users, signalled } = fakeHost({
      10: inFirst(''),
      11: inFirst(tableOf(50, db)),
      12: inFirst(''),
      13: inside,
      20: { table: '', cgroup: cgroup(`/docker/${second}`) },
      21: { table: tableOf(60, web), cgroup: cgroup(`/docker/${second}`) },
      30: { table: '' },
    });
    await users.freeze([db]);
    assert.deepEqual(signalled('SIGSTOP'), [10, 11, 12, 13]);
    await users.thaw([db], [db, web], () => true);
    assert.deepEqual(signalled('SIGCONT'), [10, 11, 12, 13]);
    await users.stop([db]);
    assert.deepEqual(signalled('SIGKILL'), [10, 11, 12, 13]);
  });

  it('are processes in no container each for itself, but none that shares the table of the host', async () => {
    const { users, signalled } = fakeHost({
      10: { table: tableOf(50, db) },
      11: { table: tableOf(60) },
      12: { table: text(sys, root, `91 29 0:45 / /mnt/look rw - zfs tank/flock/${db} rw`) },
    });
    await users.freeze([db]);
    assert.deepEqual(signalled('SIGSTOP'), [10]);
    assert.deepEqual([...(await users.using([db, web]))], [db]);
  });

  it('are told by their own container where the host itself is in one', async () => {
    const { users, all, signalled } = fakeHost({
      10: { table: tableOf(50, db), cgroup: cgroup(`/docker/${outer}/docker/${first}`) },
      11: { table: '', cgroup: cgroup(`/docker/${outer}/docker/${first}`) },
      12: { table: '', cgroup: cgroup(`/docker/${outer}/system`) },
    });
    all.set(1, { table: ofHost, cgroup: cgroup(`/docker/${outer}`) });
    await users.freeze([db]);
    assert.deepEqual(signalled('SIGSTOP'), [10, 11]);
  });

  it('go on only if all may be written that their container uses', async () => {
    const { users, signalled } = fakeHost({
      10: inFirst(''),
      11: inFirst(tableOf(50, db)),
      12: inFirst(tableOf(60, web)),
    });
    await users.thaw([db], [db, web], (id) => id === db);
    assert.deepEqual(signalled('SIGCONT'), []);
    await users.thaw([db], [db, web], () => true);
    assert.deepEqual(signalled('SIGCONT'), [10, 11, 12]);
  });

  it('are stopped before all others have been looked at, and a table that many share is read once', async () => {
    const { users, events } = fakeHost({
      2: { table: ofHost },
      10: inFirst(tableOf(50, db)),
      11: inFirst(tableOf(50, db)),
      20: { table: tableOf(60), cgroup: cgroup(`/docker/${second}`) },
    });
    await users.freeze([db]);
    const reads = ['read 1', 'read self', 'read 10'];
    assert.deepEqual(events.slice(0, 6), [...reads, 'SIGSTOP 10', 'SIGSTOP 11', 'read 20']);
  });

  it('are looked for once more when all stand: one may have been started by one that was just being stopped', async () => {
    let next = 11;
    const { users, all, signalled } = fakeHost({ 10: inFirst(tableOf(50, db)) }, (pid) => {
      if (pid === next - 1 && next < 14) all.set(next++, inFirst(''));
    });
    await users.freeze([db]);
    assert.deepEqual(signalled('SIGSTOP'), [10, 11, 12, 13]);
  });

  it('are ended also if what shows the volume has ended before them', async () => {
    const { users, all, signalled } = fakeHost({ 10: inFirst(tableOf(50, db)) }, (pid) => {
      if (pid === 10) all.set(11, inFirst(''));
    });
    await users.stop([db]);
    assert.deepEqual(signalled('SIGKILL'), [10, 11]);
  });

  it('that nobody has reaped yet have ended', async () => {
    const { users, all } = fakeHost({ 10: inFirst(tableOf(50, db)) }, (pid) => {
      if (pid === 10) all.set(10, { ...inFirst(''), state: 'Z' });
      if (pid === 10) all.set(11, { ...inFirst(''), state: 'Z' });
    });
    await users.stop([db]);
  });
});

describe('processes of the host', () => {
  it('are told of by the kernel, a mount table as far as it is wanted', async () => {
    const whole = await hostProcesses.mountInfo('self', () => false);
    const parts: string[] = [];
    assert.equal(await hostProcesses.mountInfo(process.pid, (part) => parts.push(part) < 0), whole);
    assert.equal(parts.join(''), whole);
    for (const part of parts) assert.match(part, /\n$/);
    assert.equal(await hostProcesses.mountInfo('self', () => true), parts[0]);
    assert.ok((await hostProcesses.all()).includes(process.pid));
    assert.match(await hostProcesses.cgroup('self'), /:/);
  });

  it('stand, go on and end by signals', async () => {
    const child = spawn('sleep', ['60']);
    const pid = child.pid ?? 0;
    const ended = once(child, 'exit');
    const stateIs = (state: string) =>
      until(`it is ${state}`, 5_000, async () => ((await hostProcesses.state(pid)) === state ? true : undefined));
    hostProcesses.send(pid, 'SIGSTOP');
    await stateIs('T');
    hostProcesses.send(pid, 'SIGCONT');
    await stateIs('S');
    hostProcesses.send(pid, 'SIGKILL');
    await ended;
    hostProcesses.send(pid, 'SIGKILL');
    assert.equal(await hostProcesses.state(pid), '');
    assert.equal(await hostProcesses.mountInfo(pid, () => false), '');
  });
});
