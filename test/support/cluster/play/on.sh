#!/bin/sh
# Runs a command on a host of the cluster that "make cluster" started, as root there: on N [COMMAND...]; without one, a shell.
here=$(dirname "$(realpath "$0")")
case $1 in
[1-9]) ;;
*)
  echo "usage: $0 N [COMMAND...], N is the number of a host" >&2
  exit 2
  ;;
esac
pid=$(cat "$here/hosts/n$1/pid" 2>/dev/null)
if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != tini ]; then
  echo "host $1 is not up: $here/fault boot $1" >&2
  exit 1
fi
shift
[ $# -gt 0 ] || set -- bash
exec nsenter -t "$pid" -m -n -p -u -i -- env -u DOCKER_HOST PATH="$here/bin:$PATH" "$@"
