import assert from 'node:assert/strict';
import { peerPort, portOffsets, webPorts } from '../../controller/model/host-ports.ts';

it('no two programs of flock want the same port of a host', () => {
  const ports = [
    peerPort,
    ...Object.values(webPorts),
    ...Object.values(portOffsets).map((offset) => peerPort + offset),
  ];
  assert.equal(new Set(ports).size, ports.length, ports.join());
});
