import type { ClusterHost } from './cluster-host.ts';
import type { Undo } from './network.ts';

const poolFile = '/var/lib/flock/pool.btrfs';
/** What remains of the disk; too little for anything. */
const restBytes = 1024 ** 2;

/** LOOP_GET_STATUS64 and LOOP_SET_STATUS64 of linux/loop.h, with another lo_sizelimit (bytes; 0: all of the file). Debian has no tool for it. */
const script = `
  my ($device, $limit) = @ARGV;
  open(my $loop, '+<', $device) or die "$device: $!";
  my $info = "\\0" x 232;
  ioctl($loop, 0x4C05, $info) or die "get: $!";
  substr($info, 32, 8) = pack('Q', $limit);
  ioctl($loop, 0x4C04, $info) or die "set: $!";
`;

/**
 * The disk under the host's btrfs pool answers everything with errors from now on, and the host lives on. The undo gives it back as it
 * was; the file system stays read-only until the host has booted again.
 */
export async function failDisk({ host }: ClusterHost): Promise<Undo> {
  const device = await host.run('losetup', ['--noheadings', '--output', 'NAME', '--associated', poolFile]);
  const limit = (bytes: number) => host.run('perl', ['-e', script, device.trim(), String(bytes)]);
  await limit(restBytes);
  return async () => void (await limit(0));
}
