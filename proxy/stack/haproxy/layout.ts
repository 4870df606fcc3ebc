import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { doorPaths } from '../../gate/doors.ts';

/** Where HAProxy's files are. The paths are the same in its container and in the proxy's. */
export type Layout = ReturnType<typeof layoutBelow>;

export function layoutBelow(folder: string, gateFolder: string) {
  return {
    folder,
    configuration: join(folder, 'haproxy.cfg'),
    /** HAProxy's master makes it (option -S). */
    masterSocket: join(folder, 'master.sock'),
    slots: join(folder, 'slots.json'),
    cleaner: join(folder, 'connection.lua'),
    unreachable: join(folder, 'unreachable.http'),
    maps: join(folder, 'maps'),
    map: (name: string) => join(folder, 'maps', `${name}.map`),
    certificates: join(folder, 'certificates'),
    certificate: (name: string) => join(folder, 'certificates', `${name}.pem`),
    /** HAProxy's own, from where it finds the name in TLS's first message to where it ends TLS. */
    inner: join(folder, 'inner'),
    // A socket's path has 97 characters at most for HAProxy, and a certificate's name may have 63.
    innerSocket: (port: number, certificate: string) =>
      join(folder, 'inner', `${port}-${createHash('sha256').update(certificate).digest('hex').slice(0, 16)}.sock`),
    gateSockets: (protocol: 'http' | 'https' | 'tls', port: number) => doorPaths(gateFolder, port)[protocol],
  } as const;
}
