#!/usr/bin/env bash
# shaped.sh RATE COMMAND...: runs a command in a network of its own, where all that passes over loopback together has RATE
# (20gbit: two processes with 10 each way), to time what docs/cluster.md predicts. Needs root and iproute2; nothing is left behind.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 RATE COMMAND..." >&2; exit 2; }
for program in unshare ip tc; do
  command -v "$program" >/dev/null || { echo "$program is missing: apt-get install util-linux iproute2" >&2; exit 3; }
done
rate=$1
shift
exec unshare -n bash -c '
  ip link set lo up && tc qdisc add dev lo root tbf rate "$0" burst 2mb latency 100ms || exit 3
  exec "$@"' "$rate" "$@"
