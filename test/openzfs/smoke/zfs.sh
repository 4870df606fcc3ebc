#!/bin/bash
# The steps of OpenZFS that flock relies on, each timed; the first that fails ends the run with its status.
set -euo pipefail

step() {
  local name=$1 start=$EPOCHREALTIME
  shift
  "$@" > /out/step.log 2>&1 || { echo "FAILED $name"; cat /out/step.log; exit 1; }
  printf 'step %-22s %6d ms\n' "$name" $(((${EPOCHREALTIME/./} - ${start/./}) / 1000))
}
full_send() { zfs send tank/a@one | zfs recv -u tank/b; }
from_bookmark() {
  zfs destroy tank/a@one
  echo more > /tank/a/more
  zfs snapshot tank/a@two
  zfs send -i tank/a#one tank/a@two | zfs recv -u tank/b
  test "$(zfs get -Hp -o value guid tank/a@two)" = "$(zfs get -Hp -o value guid tank/b@two)"
}
over_quota() {
  zfs create -o quota=8M -o compression=off tank/small
  # Fails with EDQUOT, and must.
  if dd if=/project/random of=/tank/small/file bs=1M 2>&1; then return 1; fi | grep -i quota
}
legacy_mount() {
  zfs create -o mountpoint=legacy tank/legacy
  mkdir -p /mnt/legacy
  mount -t zfs tank/legacy /mnt/legacy
  echo hello > /mnt/legacy/file
  grep ' /mnt/legacy zfs ' /proc/mounts
  umount /mnt/legacy
}
resume() {
  zfs send tank/a@two | head -c 6000000 | zfs recv -s -u tank/c && return 1
  zfs send -t "$(zfs get -H -o value receive_resume_token tank/c)" | zfs recv -s -u tank/c
  test "$(zfs get -Hp -o value guid tank/a@two)" = "$(zfs get -Hp -o value guid tank/c@two)"
}

dd if=/dev/urandom of=/project/random bs=1M count=16 status=none
step modprobe modprobe zfs
step 'zpool create' zpool create -O compression=lz4 tank /dev/vdd1
step 'zfs create' zfs create -o flock:owner=smoke tank/a
cp /project/random /tank/a/
step snapshot zfs snapshot tank/a@one
step bookmark zfs bookmark tank/a@one tank/a#one
step 'send | recv' full_send
step 'send from bookmark' from_bookmark
step 'cut and resumed recv' resume
step quota over_quota
step 'mount -t zfs (legacy)' legacy_mount
step clone zfs clone tank/a@two tank/clone
step 'zfs list' zfs list -Hp -t all -o name,used,guid
step 'node' node -e 0
step 'export' zpool export tank
step 'import' zpool import -d /dev/vdd1 tank
zfs version | tee /out/version
node --version
rm /out/step.log
