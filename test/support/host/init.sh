#!/bin/bash
# First process of a test host: private mounts with the default paths of a real host, then nothing but reaping.
# Arguments: the folder that keeps the host's disk state; the host's name.
set -euo pipefail
disk=$1
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/docker/plugins /run/zfs
for folder in docker flock zfs; do
  mkdir -p "$disk/$folder" "/var/lib/$folder"
  mount --bind "$disk/$folder" "/var/lib/$folder"
done
mount -t proc proc /proc
# A new sysfs shows this host's own network, but hides the cgroups, so they are carried over.
mkdir /run/cgroup
mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys
mount --rbind /run/cgroup /sys/fs/cgroup
umount -l /run/cgroup
hostname "$2"
ip link set lo up
# Shared like under systemd, and last: shared earlier, the lazy umount above would take /sys/fs/cgroup with it.
mount --make-rshared /
exec tini -s -- sleep infinity
