#!/bin/bash
# The guest's Docker: a container, a dataset in it, and the daemon's own view of the machine.
set -euo pipefail
since() { printf 'step %-22s %6d ms\n' "$1" $(((${EPOCHREALTIME/./} - ${start/./}) / 1000)); start=$EPOCHREALTIME; }
start=$EPOCHREALTIME
start-dockerd
since 'dockerd'
docker version | tee /out/version
mkdir -p rootfs/bin rootfs/data
cp /bin/busybox rootfs/bin/
ln -s busybox rootfs/bin/sh
start=$EPOCHREALTIME
tar -c -C rootfs . | docker import - smoke:1
since 'docker import'
docker run --rm smoke:1 /bin/busybox echo 'hello from a container'
since 'docker run'
modprobe zfs
zpool create tank /dev/vdd1
zfs create tank/data
start=$EPOCHREALTIME
docker run --rm --network none -v /tank/data:/data smoke:1 /bin/sh -c 'echo written > /data/file'
since 'docker run, zfs bind'
test "$(cat /tank/data/file)" = written
docker info --format '{{.Driver}} {{.CgroupVersion}} {{.KernelVersion}}'
