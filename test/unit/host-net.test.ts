import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { doSubnetsMeet, parseRoutes, parseSockets } from '../../controller/model/host-net.ts';
import { hostNet } from '../../controller/program/host-net.ts';

describe('what a host’s network has already', () => {
  it('are the sockets that wait, not those that are connected', () => {
    const head = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode';
    const tcp = [
      head,
      '   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0',
      '   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0',
      '   2: 0200000A:0016 0100000A:D431 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0',
      '',
    ].join('\n');
    assert.deepEqual(parseSockets(tcp, 'tcp'), [
      { ip: '127.0.0.1', port: 8080, protocol: 'tcp' },
      { ip: '0.0.0.0', port: 22, protocol: 'tcp' },
    ]);
    const udp6 = [
      head,
      '   0: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 07 0:0 0:0 0 0 0 4 2 0 0',
      '   1: 000080FE00000000FF005450B6AD1DFE:0222 00000000000000000000000000000000:0000 07 0:0 0:0 0 0 0 5 2 0 0',
      '   2: 0000000000000000FFFF00000100007F:0044 00000000000000000000000000000000:0000 07 0:0 0:0 0 0 0 5 2 0 0',
    ].join('\n');
    assert.deepEqual(
      parseSockets(udp6, 'udp').map(({ ip, port }) => `${ip} ${port}`),
      [':: 53', 'fe80::5054:ff:fe1d:adb6 546', '127.0.0.1 68'],
    );
    assert.deepEqual(parseSockets('', 'tcp'), []);
  });

  it('are the subnets that it is in, not those behind gateways', () => {
    const routes = [
      'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT',
      'eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0',
      'eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0',
      'docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0',
      'tun0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0',
      'tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0',
      'eth0\t000010AC\t0101A8C0\t0003\t0\t0\t0\t0000F0FF\t0\t0\t0',
      '*\t0000A8C0\t00000000\t0201\t0\t0\t0\t0000FFFF\t0\t0\t0',
      '',
    ].join('\n');
    assert.deepEqual(parseRoutes(routes), ['192.168.1.0/24', '172.17.0.0/16', '10.0.0.0/8']);
  });

  it('meet where one holds the other', () => {
    const meet = (one: string, other: string) => [doSubnetsMeet(one, other), doSubnetsMeet(other, one)];
    assert.deepEqual(meet('172.16.0.0/12', '172.18.0.0/16'), [true, true]);
    assert.deepEqual(meet('172.18.0.0/16', '172.18.0.0/16'), [true, true]);
    assert.deepEqual(meet('172.18.0.0/16', '172.19.0.0/16'), [false, false]);
    assert.deepEqual(meet('fd00::/64', '172.19.0.0/16'), [false, false]);
    assert.deepEqual(meet('', '172.19.0.0/16'), [false, false]);
  });

  it('are read of this host', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    const socket = createSocket('udp4').bind(0, '127.0.0.1');
    try {
      await Promise.all([once(server, 'listening'), once(socket, 'listening')]);
      const found = await hostNet.sockets();
      const at = server.address();
      assert.ok(typeof at === 'object' && at !== null);
      for (const [port, protocol] of [
        [at.port, 'tcp'],
        [socket.address().port, 'udp'],
      ] as const)
        assert.ok(
          found.some((one) => one.port === port && one.protocol === protocol && one.ip === '127.0.0.1'),
          protocol,
        );
      assert.deepEqual([await hostNet.isOwn('127.0.0.9'), await hostNet.isOwn('192.0.2.1')], [true, false]);
    } finally {
      server.close();
      socket.close();
    }
  });
});
