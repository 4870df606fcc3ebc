import assert from 'node:assert/strict';
import { createBody } from '../../controller/model/api.ts';
import type { DatasetId } from '../../controller/model/names.ts';
import { noOptions, optionShapes, parseOptions } from '../../controller/model/options.ts';
import {
  durationMsMax,
  formatDuration,
  formatSize,
  parseDuration,
  parseSize,
} from '../../controller/model/quantity.ts';
import { decodeSettings, parseSettingsText, stashMsDefault } from '../../controller/model/settings.ts';
import { decodeRecord, encodeRecord, encodeStamp, recordFromStamp } from '../../controller/model/volume.ts';
import { refuses } from '../support/refuses.ts';

const mebi = 1024 ** 2;

describe('sizes', () => {
  for (const [text, bytes] of [
    ['512M', 512 * mebi],
    ['2.5G', 2560 * mebi],
    ['10GiB', 10 * 1024 * mebi],
    ['10gb', 10 * 1024 * mebi],
    ['1048576', mebi],
    ['1048576b', mebi],
    ['1T', 1024 * 1024 * mebi],
    [' 1k ', 1024],
  ] as const) {
    it(`reads ${text} as ${bytes} bytes`, () => assert.equal(parseSize(text), bytes));
  }

  for (const text of [
    '',
    '-1',
    '0',
    '0G',
    '1.5x',
    '1,5G',
    'G',
    '1e9',
    '99999999999T',
    '9007199254740993',
    '1 0G',
    '10GG',
    '0x10',
    '1.2.3M',
    'NaN',
    'Infinity',
    '１G',
  ]) {
    it(`refuses ${JSON.stringify(text)}`, () =>
      assert.match(refuses(() => parseSize(text), 'invalid-option').message, /invalid size ".*": use /));
  }

  it('writes sizes as people read them', () => {
    assert.deepEqual([0, 1023, 1024, 1536, 10 * 1024 * mebi, 123 * mebi].map(formatSize), [
      '0 B',
      '1023 B',
      '1 KiB',
      '1.5 KiB',
      '10 GiB',
      '123 MiB',
    ]);
  });
});

describe('durations', () => {
  it('reads and writes units', () => {
    assert.deepEqual(
      ['0', '100ms', '90s', '24h', '7d', '2w'].map(parseDuration),
      [0, 100, 90_000, 86_400_000, 604_800_000, 1_209_600_000],
    );
    assert.deepEqual([0, 100, 1500, 90_000, 86_400_000, 604_800_000].map(formatDuration), [
      '0',
      '100ms',
      '1500ms',
      '90s',
      '1d',
      '1w',
    ]);
    for (const text of ['', '1ns', 'ms', '1m s', '-1h', '1', '1.5h', '1y', 'h', '1h 2m'])
      refuses(() => parseDuration(text), 'invalid-option');
  });

  it('have an end that a date can hold', () => {
    assert.equal(parseDuration('36500d'), durationMsMax);
    assert.ok(Number.isFinite(new Date(Date.UTC(2200, 0, 1) + 2 * durationMsMax).getTime()));
    for (const text of ['36501d', '999999999w', '999999999d', '999999999h'])
      assert.match(refuses(() => parseDuration(text), 'invalid-option').message, /at most 100 years \(36500d\)/);
  });
});

describe('driver options', () => {
  it('takes every option', () => {
    const options = parseOptions({
      size: '1G',
      Compression: 'ZSTD',
      recordsize: '16K',
      mode: '0750',
      uid: '999',
      gid: '0',
      from: 'db@s1',
      protect: 'true',
      'zfs.special_small_blocks': '4K',
      replicas: '2',
      Remote_Replicas: '0',
      interval: '500ms',
      retain: '1h=all,1d=1h',
      nodes: 'host-2, host-1,host-2',
      locality: 'rack=r1,dc=lon',
      failover: 'Manual',
      'max-loss': '90s',
    });
    assert.deepEqual(options, {
      sizeBytes: 1024 * mebi,
      compression: 'zstd',
      recordSizeBytes: 16_384,
      mode: 0o750,
      uid: 999,
      gid: 0,
      protect: true,
      from: { name: 'db', snapshot: 's1' },
      properties: { 'zfs.special_small_blocks': '4K' },
      replicas: 2,
      remoteReplicas: 0,
      intervalMs: 500,
      retain: [
        { forMs: 3_600_000, everyMs: 0 },
        { forMs: 86_400_000, everyMs: 3_600_000 },
      ],
      nodes: ['host-1', 'host-2'],
      locality: { dc: 'lon', rack: 'r1' },
      failover: 'manual',
      maxLossMs: 90_000,
    });
    assert.deepEqual(Object.keys(options.locality ?? {}), ['dc', 'rack']);
  });

  it('takes no options', () => assert.deepEqual(parseOptions({}), noOptions));

  for (const [key, value] of [
    ['sise', '1G'],
    ['replicas', '9'],
    ['failover', 'sometimes'],
    ['max-loss', 'much'],
    ['replicas', '-1'],
    ['replicas', '1.5'],
    ['remote-replicas', 'all'],
    ['interval', '1'],
    ['interval', '0'],
    ['interval', '99ms'],
    ['interval', '61m'],
    ['retain', '1h'],
    ['retain', '1d=1h,1h=all'],
    ['nodes', 'host-1,'],
    ['nodes', 'Host_1'],
    ['locality', 'rack'],
    ['locality', 'rack:r1'],
    ['locality', 'rack='],
    ['locality', 'rack=r1,rack=r2'],
    ['locality', 'rack=r1=r2'],
    ['locality', 'Rack=r1'],
    ['locality', 'rack=../x'],
    ['failower', 'auto'],
    ['size', '-1'],
    ['size', '1.5x'],
    ['size', '0'],
    ['size', '1G\n-o exec=on'],
    ['mode', '999'],
    ['mode', '07777x'],
    ['uid', 'root'],
    ['uid', '-1'],
    ['gid', '4294967295'],
    ['protect', 'yes'],
    ['recordsize', '1000'],
    ['from', '../x'],
    ['compression', 'lz4 -o x=y'],
    ['zfs.mountpoint', '/etc'],
    ['zfs.refquota', '1G'],
    ['zfs.', 'x'],
    ['zfs.a-b', 'x'],
    ['zfs.user:prop', 'x'],
    ['zfs.-o', 'x'],
    ['btrfs.ro', 'false'],
    ['btrfs.compression', 'zstd'],
    ['size', '1'],
    ['size', '4096'],
    ['size', '1048575'],
    ['__proto__', 'x'],
    ['constructor', 'x'],
    ['zfs.atime', ''],
    ['zfs.atime', 'o\0n'],
    ['zfs.atime', 'x'.repeat(300)],
  ] as const) {
    it(`refuses ${key}=${JSON.stringify(value).slice(0, 24)}, names it and lists the valid ones`, () => {
      const error = refuses(() => parseOptions(Object.fromEntries([[key, value]])), 'invalid-option');
      assert.ok(error.message.startsWith(`option "${key}": `), error.message);
      for (const shape of optionShapes) assert.ok(error.message.includes(shape));
    });
  }

  it('are read from records and stamps of a time without clusters', () => {
    const id = 'db.00000001' as DatasetId;
    const old = {
      sizeBytes: 1024,
      compression: null,
      recordSizeBytes: null,
      mode: null,
      uid: null,
      gid: null,
      protect: true,
      from: null,
      properties: {},
    };
    const record = { id, name: 'db', createdAtMs: 1, options: old, phase: { kind: 'ready' } };
    const wanted = { ...noOptions, sizeBytes: 1024, protect: true };
    assert.deepEqual(decodeRecord(JSON.stringify(record)).options, wanted);
    const stamp = JSON.stringify({ name: 'db', created: 1, options: { sizeBytes: 1024, protect: true } });
    assert.deepEqual(recordFromStamp(id, stamp, noOptions)?.options, wanted);
  });

  it('come back from records and stamps', () => {
    const options = parseOptions({
      replicas: '2',
      'remote-replicas': '1',
      interval: '250ms',
      retain: '1h=all,24h=1h,7d=1d,30d=7d',
      nodes: 'host-1,host-2',
      locality: 'disk=ssd',
    });
    const record = decodeRecord(
      JSON.stringify({ id: 'db.00000001', name: 'db', createdAtMs: 1, options, phase: { kind: 'ready' } }),
    );
    assert.deepEqual(decodeRecord(encodeRecord(record)).options, options);
    assert.deepEqual(recordFromStamp(record.id, encodeStamp(record, 1000), noOptions)?.options, options);
  });

  it('keep every key on their way through the REST API', () => {
    const { options } = createBody.parse(JSON.parse('{"name":"db","options":{"__proto__":"x"}}'));
    assert.match(
      refuses(() => parseOptions(options), 'invalid-option').message,
      /option "__proto__": there is no such/,
    );
    for (const other of [[], 'x', null, { size: 5 }])
      assert.equal(createBody.safeParse({ name: 'db', options: other }).success, false);
    assert.deepEqual(createBody.parse({ name: 'db' }).options, {});
  });

  it('names the smallest size', () => {
    assert.match(refuses(() => parseOptions({ size: '4096' }), 'invalid-option').message, /at least 1 MiB/);
    assert.equal(parseOptions({ size: '1M' }).sizeBytes, mebi);
  });

  it('refuses an option that is given twice in two spellings', () => {
    const twice = { 'remote-replicas': '1', remote_replicas: '2' };
    assert.match(refuses(() => parseOptions(twice), 'invalid-option').message, /given twice/);
    assert.match(refuses(() => parseOptions({ size: '1G', SIZE: '2G' }), 'invalid-option').message, /given twice/);
  });
});

describe('settings', () => {
  it('leave room for volumes and snapshots in the name of the pool', () => {
    const longest = `tank/${'f'.repeat(47)}`;
    assert.equal(parseSettingsText(`pool=${longest}`).pool, longest);
    assert.equal(`${longest}/${'n'.repeat(128)}.${'0'.repeat(8)}@${'s'.repeat(64)}`.length, 255);
    refuses(() => parseSettingsText(`pool=${longest}f`), 'invalid-option');
    // A bare pool gets "/flock".
    const bare = 't'.repeat(47);
    assert.match(
      refuses(() => parseSettingsText(`pool=${bare}`), 'invalid-option').message,
      /53 characters, at most 52/,
    );
    const settings = { backend: 'zfs', pool: bare, poolSizeBytes: 1024 ** 3, trashMs: 1 };
    assert.equal(decodeSettings(JSON.stringify(settings)).pool, bare, 'a host that has it goes on');
  });

  it('say what is wrong in a file, in words', () => {
    const settings = { backend: 'btrfs', pool: '/p', poolSizeBytes: 1024 ** 3, trashMs: 1 };
    for (const [text, wanted] of [
      [JSON.stringify({ ...settings, trashMs: 604799999395200000 }), /^"trashMs": Too big/],
      [JSON.stringify({ ...settings, backend: 'xfs' }), /^"backend": Invalid option/],
      ['5', /^the whole: Invalid input/],
      ['{', /JSON/],
    ] as const)
      assert.match(refuses(() => decodeSettings(text), 'invalid-option').message, wanted);
  });

  it('reads the text form', () => {
    assert.deepEqual(parseSettingsText(' backend=zfs  trash=48h pool=tank/flock '), {
      backend: 'zfs',
      trashMs: 172_800_000,
      pool: 'tank/flock',
    });
    assert.deepEqual(parseSettingsText(''), {});
  });

  for (const text of [
    'backend=ext4',
    'trash',
    'colour=red',
    'pool=../x',
    'pool=/a/../b',
    'pool=-o',
    'pool=a//b',
    'pool-size=1M',
    '=x',
  ]) {
    it(`refuses ${text}`, () => refuses(() => parseSettingsText(text), 'invalid-option'));
  }

  it('reads back the file form and refuses what it does not know', () => {
    const settings = {
      backend: 'btrfs',
      pool: '/var/lib/flock/pool.btrfs',
      poolSizeBytes: 1024 * mebi,
      trashMs: 0,
    } as const;
    // A file of the time before clusters has no more than this.
    const completed = { ...settings, stashMs: stashMsDefault, transferBytesPerSecond: null, encryption: 'on' };
    assert.deepEqual(decodeSettings(JSON.stringify(settings)), completed);
    assert.deepEqual(decodeSettings(JSON.stringify(completed)), completed);
    assert.throws(() => decodeSettings(JSON.stringify({ ...settings, more: 1 })));
    assert.throws(() => decodeSettings('{}'));
  });
});
