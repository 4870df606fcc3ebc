import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  fingerprintOf,
  isKeyOf,
  issueCertificate,
  makeAuthority,
  makeKey,
  needsRenewal,
} from '../../controller/cluster/ca.ts';
import { integer, oid, time } from '../../controller/cluster/der.ts';
import { forgetIdentity, joiningKey, loadIdentity, saveIdentity } from '../../controller/cluster/files.ts';
import { renewCertificate } from '../../controller/cluster/renewal.ts';
import type { NodeIdentity } from '../../controller/model/identity.ts';
import { parseNodeName } from '../../controller/model/names.ts';
import { rejects } from '../support/refuses.ts';

const clusterId = '0123456789abcdef';
const dayMs = 24 * 3600 * 1000;
const nowMs = Date.UTC(2026, 10, 23);
const name = parseNodeName('node-1');
const authority = makeAuthority(clusterId, nowMs);

function issue(address: string, at = nowMs) {
  return new X509Certificate(issueCertificate(authority, { clusterId, name, address }, makeKey(), at));
}

describe('the certificate authority', () => {
  it('writes DER as the standard has it', () => {
    assert.equal(integer(Buffer.from([0, 0, 0x80])).toString('hex'), '02020080');
    assert.equal(integer(Buffer.from([0])).toString('hex'), '020100');
    assert.equal(oid('1.2.840.10045.4.3.2').toString('hex'), '06082a8648ce3d040302');
    assert.equal(time(Date.UTC(2049, 11, 31, 23, 59, 59)).toString('latin1'), '\x17\x0d491231235959Z');
    assert.equal(time(Date.UTC(2050, 0, 1)).toString('latin1'), '\x18\x0f20500101000000Z');
  });

  it('is a certificate for ten years that signs itself and nothing but nodes', () => {
    const root = new X509Certificate(authority.certificate);
    assert.equal(root.ca, true);
    assert.ok(root.verify(root.publicKey));
    assert.ok(isKeyOf(authority.certificate, authority.key));
    assert.equal(Math.floor((root.validToDate.getTime() - nowMs) / dayMs / 365), 10);
    assert.equal(root.publicKey.asymmetricKeyDetails?.namedCurve, 'prime256v1');
  });

  it('issues certificates to nodes, for both ends of a connection', () => {
    const certificate = issue('10.0.0.1');
    const root = new X509Certificate(authority.certificate);
    assert.ok(certificate.checkIssued(root) && certificate.verify(root.publicKey));
    assert.equal(certificate.ca, false);
    assert.equal(certificate.subject, 'CN=node-1');
    assert.equal(certificate.subjectAltName, `DNS:node-1, DNS:node-1.${clusterId}.flock, IP Address:10.0.0.1`);
    assert.deepEqual(certificate.keyUsage, ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
    assert.notEqual(issue('10.0.0.1').serialNumber, certificate.serialNumber);
  });

  it('knows host names and every way to write an IPv6 address', () => {
    const named = (address: string) => issue(address).subjectAltName?.split(', ').at(-1);
    assert.equal(named('db.example'), 'DNS:db.example');
    assert.equal(named('fd00::1:2'), 'IP Address:FD00:0:0:0:0:0:1:2');
    assert.equal(named('::1'), 'IP Address:0:0:0:0:0:0:0:1');
    assert.equal(named('::ffff:1.2.3.4'), 'IP Address:0:0:0:0:0:FFFF:102:304');
    assert.equal(named('1:2:3:4:5:6:7:8'), 'IP Address:1:2:3:4:5:6:7:8');
  });

  it('never outlives its authority', () => {
    const end = new X509Certificate(authority.certificate).validToDate.getTime();
    assert.equal(issue('10.0.0.1', end - dayMs).validToDate.getTime(), end);
  });
});

describe('the files of a member', () => {
  let folder: string;
  const key = makeKey();
  const identity: NodeIdentity = {
    ...{ clusterId, name, address: '10.0.0.1', port: 4270, storeAddress: 'http://127.0.0.1:8500', storeToken: null },
    ...{ caCertificate: authority.certificate, caKey: authority.key, key },
    certificate: issueCertificate(authority, { clusterId, name, address: '10.0.0.1' }, key, nowMs),
  };

  beforeEach(async () => {
    folder = join(await mkdtemp(join(tmpdir(), 'flock-identity-')), 'cluster');
  });
  afterEach(() => rm(join(folder, '..'), { recursive: true }));

  it('come back as they were, for root only', async () => {
    assert.equal(await loadIdentity(folder), null);
    await saveIdentity(folder, identity);
    assert.deepEqual(await loadIdentity(folder), identity);
    for (const file of await readdir(folder)) assert.equal((await stat(join(folder, file))).mode & 0o777, 0o600, file);
    assert.equal((await stat(folder)).mode & 0o777, 0o700);
    await forgetIdentity(folder);
    assert.equal(await loadIdentity(folder), null);
    assert.deepEqual(await readdir(folder), []);
  });

  it('are no membership until the last one is written', async () => {
    await joiningKey(folder, () => key);
    for (const file of ['ca.crt', 'ca.key', 'node.crt', 'node.json.new']) await writeFile(join(folder, file), 'x');
    assert.equal(await loadIdentity(folder), null);
    assert.equal(await joiningKey(folder, makeKey), key);
    await saveIdentity(folder, identity);
    assert.deepEqual(await loadIdentity(folder), identity);
  });

  it('say what is wrong when they are damaged, instead of "in no cluster"', async () => {
    await saveIdentity(folder, identity);
    await writeFile(join(folder, 'node.key'), makeKey());
    const error = await rejects(loadIdentity(folder), 'not-ready');
    assert.match(error.message, /node\.key is not the key of node\.crt/);
    await rm(join(folder, 'ca.key'));
    await rejects(loadIdentity(folder), 'not-ready');
  });

  it('are renewed when less than a third of the time is left', async () => {
    await saveIdentity(folder, identity);
    const lateMs = nowMs + 250 * dayMs;
    assert.equal(needsRenewal(identity.certificate, nowMs + 200 * dayMs), false);
    assert.equal(await renewCertificate(folder, identity, nowMs + 200 * dayMs), null);
    const renewed = await renewCertificate(folder, identity, lateMs);
    assert.ok(renewed !== null);
    assert.equal(needsRenewal(renewed.certificate, lateMs), false);
    assert.deepEqual(await loadIdentity(folder), renewed);
    assert.notEqual(fingerprintOf(renewed.certificate), fingerprintOf(identity.certificate));
  });

  it('are renewed when a clock that was ahead has issued them', async () => {
    await saveIdentity(folder, identity);
    const ahead = await renewCertificate(folder, identity, nowMs + 1_000 * dayMs);
    assert.ok(ahead !== null);
    const renewed = await renewCertificate(folder, ahead, nowMs);
    assert.ok(renewed !== null, 'it would be valid to nobody for years');
    assert.ok(new X509Certificate(renewed.certificate).validFromDate.getTime() <= nowMs);
    assert.equal(await renewCertificate(folder, renewed, nowMs), null);
  });

  it('are left alone by a clock that is behind', async () => {
    await saveIdentity(folder, identity);
    assert.equal(await renewCertificate(folder, identity, 0), null, 'it would be over when the clock is right');
    assert.deepEqual(await loadIdentity(folder), identity);
  });
});
