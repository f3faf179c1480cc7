#!/usr/bin/env bash
# A device against the CPU: every method, every network forward and backward, an evaluation, a training that is cut off
# and goes on, tf32 and bf16 (`sora bench agree`). Prints a table; exit status 1 if something differs, 2 without a device.
#
#   scripts/gpu/check.sh DEVICE [OPTIONS OF sora bench agree]
#   RUN=scripts/gpu/lavapipe.sh scripts/gpu/check.sh vulkan      on the CPU, by Mesa's lavapipe
#
# SORA: the program, built with the device's feature (default target/release/sora). OUT: keeps the JSON lines in this
# file. ONLY: the groups, as words (default: all). Each group is a process of its own: a driver that crashes ends one.
set -uo pipefail
# With a trap bash outlives its child, so that whoever stops this script for good stops the child as well.
trap 'exit 143' TERM
here=$(dirname "$0")
device=${1:?"usage: $0 DEVICE [OPTIONS OF sora bench agree]"}
shift
sora=${SORA:-$here/../../target/release/sora}
read -ra run <<<"${RUN:-}"
out=${OUT:-$(mktemp)}
: >"$out"
call() { "${run[@]}" "$sora" bench agree --device "$device" "$@"; }

for group in ${ONLY:-method network evaluation resume tf32 bf16}; do
  lines=$(wc -l <"$out")
  call --only "$group" "$@" >>"$out"
  status=$?
  [ $status = 2 ] && exit 2
  if [ $status -gt 1 ]; then
    # The cases before the crash are there.
    printf '{"kind":"agreement","case":"%s (the rest)","device":"%s","result":"failed","reason":"ended with status %s"}\n' \
      "$group" "$device" "$status" >>"$out"
  elif [ "$(wc -l <"$out")" = "$lines" ]; then
    printf '{"kind":"agreement","case":"%s","device":"%s","result":"failed","reason":"no case ran"}\n' "$group" "$device" >>"$out"
  fi
done
"${PYTHON:-python3}" "$here/agreement.py" "$out"
