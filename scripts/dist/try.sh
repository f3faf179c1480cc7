#!/usr/bin/env bash
# scripts/dist/try.sh DIST [ROOT]: installs the archive for Linux from the folder DIST (as
# scripts/dist/build.sh leaves it) with install.sh into a bare Debian without Rust, Python and
# compilers, and does the README's main job there: data, training, evaluation, report. ROOT is the
# bare system, made with debootstrap if it is not there ($SUITE: oldest Debian that its server has).
# Needs root. SHORT=1 trains a few steps instead of an epoch.
set -euo pipefail
dist=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
root=${2:-$(mktemp -d)/root}
PARTIAL=1 "$here/release_files.sh" "$dist"

[ -e "$root/bin/sh" ] || debootstrap --variant=minbase "${SUITE:-bullseye}" "$root" >&2
mkdir -p "$root/try/dist"
cp "$dist"/* "$root/try/dist/"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
mount --bind /proc "$root/proc" && trap 'umount "$root/proc"' EXIT

cat >"$root/try/job.sh" <<'JOB'
set -eu
for tool in cargo rustc python3 gcc cc; do
  ! command -v $tool >/dev/null || { echo "$tool is here: not a bare system" >&2; exit 1; }
done
cd /try
rm -rf home runs && mkdir home
export HOME=/try/home SORA_BASE_URL=/try/dist
if [ ! -e /usr/share/datasets/fashion-mnist ]; then
  apt-get update -qq && apt-get install -y -qq --no-install-recommends dataset-fashion-mnist >/dev/null
fi
. /etc/os-release && echo "== $PRETTY_NAME, $(ldd --version | head -n 1)"
sh dist/install.sh
export PATH="$HOME/.local/bin:$PATH"
train="--width 16 --epochs 1 --val 500"
limit=2000
if [ -n "${SHORT:-}" ]; then train="--width 4 --batch 50 --max-steps 30 --val 100" limit=100; fi
sora -q train --dataset fashion-mnist $train --out runs/sora
sora -q eval runs/sora --limit $limit
sora -q report runs/sora --out report.html && test -s report.html
# A name is looked up without the C library's plug-ins: the answer is not a crash, whatever it is.
sora data fetch mnist --data-dir data --force 2>fetch.log || status=$?
[ "${status:-0}" -le 2 ] || { cat fetch.log >&2; exit 1; }
tail -n 1 fetch.log
JOB
chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin SHORT="${SHORT:-}" sh /try/job.sh
