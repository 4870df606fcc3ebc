import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { createClient } from '../../controller/cli/client.ts';
import { issueCertificate, makeAuthority, makeKey } from '../../controller/cluster/ca.ts';
import { parseNodeName } from '../../controller/model/names.ts';
import { certificateView, madeRouteView } from '../../controller/model/proxy-api.ts';
import { checkPair, coversHost, readFacts } from '../../proxy/api/certificate-check.ts';
import { containerDoc, createApiProxies } from '../support/api-proxies.ts';
import { refuses } from '../support/refuses.ts';

const dayMs = 24 * 3600 * 1000;
const nowMs = Date.now();

/** For host `www` and one more name or address. Valid for 365 days from a day before `fromMs`. */
function issued(address: string, fromMs = nowMs) {
  const authority = makeAuthority('test', fromMs);
  const key = makeKey();
  const name = parseNodeName('www');
  return {
    authority,
    key,
    certificate: issueCertificate(authority, { clusterId: 'test', name, address }, key, fromMs),
  };
}

describe('a certificate and its key', () => {
  const { authority, key, certificate } = issued('www.example.com');
  const invalid = (certificateText: string, keyText: string | null, words: RegExp, atMs = nowMs) =>
    assert.match(refuses(() => checkPair(certificateText, keyText, atMs), 'certificate-invalid').message, words);

  it('are kept without what stands around them', () => {
    const pair = checkPair(`Bag Attributes\n${certificate}${authority.certificate}`, `# key\n${key}`, nowMs);
    assert.ok(pair.certificate.startsWith('-----BEGIN CERTIFICATE-----\n'));
    assert.equal(pair.certificate.match(/BEGIN CERT/g)?.length, 2);
    assert.equal(pair.key, key);
    assert.deepEqual(pair.notes, []);
    assert.equal(checkPair(certificate + key, null, nowMs).key, key);
  });

  it('are refused if they can not serve anybody', () => {
    invalid('nothing', key, /BEGIN CERTIFICATE/);
    invalid(certificate, 'nothing', /BEGIN PRIVATE KEY/);
    invalid(certificate, null, /key is not there/);
    invalid(certificate.replace('MII', 'AAA'), key, /certificate 1 of the file can't be read/);
    invalid(certificate, key.replace('MIG', 'AAA'), /key can't be read/);
    invalid(certificate, makeKey(), /does not belong to the certificate of www/);
    invalid(authority.certificate + certificate, key, /belongs to certificate 2 .* comes first/);
    invalid(certificate.repeat(17), key, /17 certificates/);
    invalid(certificate, key, /expired, on .*: renew/, nowMs + 400 * dayMs);
    const short = generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey;
    invalid(certificate, short.export({ type: 'pkcs8', format: 'pem' }).toString(), /1024 bits/);
    const secret = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    const options = { type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' } as const;
    invalid(certificate, secret.export(options).toString(), /passphrase/);
  });

  it('come with notes on what will not work for all, or not for long', () => {
    const notes = (text: string, ofKey: string, atMs = nowMs) => checkPair(text, ofKey, atMs).notes.join('; ');
    assert.match(notes(certificate, key, nowMs + 360 * dayMs), /^it expires on .*, in \d days$/);
    assert.match(notes(certificate, key, nowMs - 2 * dayMs), /not valid before/);
    assert.match(
      notes(certificate + makeAuthority('other', nowMs).certificate, key),
      /certificate 2 of the file did not issue/,
    );
    assert.match(notes(authority.certificate, authority.key), /names no hosts/);
  });

  it('cover what they name', () => {
    assert.ok(readFacts(certificate)?.covers.includes('www.example.com'));
    assert.equal(readFacts('nothing'), null);
    assert.ok(coversHost(certificate, 'www.example.com') && coversHost(certificate, '*'));
    assert.ok(!coversHost(certificate, 'example.com') && !coversHost(certificate, '*.example.com'));
    const wild = issued('*.example.com').certificate;
    assert.ok(coversHost(wild, '*.example.com') && coversHost(wild, 'a.example.com'));
    assert.ok(!coversHost(wild, 'a.b.example.com'));
    const numbered = issued('192.0.2.7').certificate;
    assert.ok(coversHost(numbered, '192.0.2.7') && !coversHost(numbered, '192.0.2.8'));
  });
});

describe('certificates in the store', () => {
  let proxies: Awaited<ReturnType<typeof createApiProxies>>;
  beforeEach(async () => {
    proxies = await createApiProxies();
  });
  afterEach(() => proxies.dispose());

  it('are renewed, used by routes, and kept while they are', async () => {
    const client = createClient({ socketPath: proxies.socketPath, name: 'proxy' });
    const add = (text: string, key: string) =>
      client.send('POST', '/v1/certificates', { name: 'shop', certificate: text, key }, certificateView);
    const route = (host: string) =>
      client.send('POST', '/v1/routes', { route: `https://${host} -> web:80 certificate=shop` }, madeRouteView);
    await proxies.run(containerDoc('web', { 'flock.service': 'web' }));
    const first = issued('www.example.com');
    assert.deepEqual((await add(first.certificate, first.key)).notes, []);
    assert.deepEqual((await route('www.example.com')).notes, []);
    assert.match((await route('shop.example.com')).notes[0] ?? '', /does not cover shop\.example\.com/);
    const second = issued('shop.example.com');
    const renewed = await add(second.certificate, second.key);
    assert.match(renewed.notes[0] ?? '', /does not cover www\.example\.com/);
    assert.deepEqual(renewed.routes.toSorted(), ['https://shop.example.com', 'https://www.example.com']);
    const listed = await client.get('/v1/certificates', certificateView.array());
    assert.deepEqual(
      listed.map(({ name, fingerprint }) => [name, fingerprint]),
      [['shop', renewed.fingerprint]],
    );
    const removed = proxies.refused('certificate', 'rm', 'shop');
    assert.match(await removed, /used by https:\/\/.*--force/);
    await proxies.flockctl('certificate', 'rm', '--force', 'shop');
    await assert.rejects(add(second.certificate, first.key), /does not belong/);
    const odd = client.send('POST', '/v1/certificates', { name: '../x', certificate: '', key: null }, certificateView);
    await assert.rejects(odd, /invalid certificate name/);
  });
});
