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

# Look-ups that go through the C library would load this plug-in and crash.
sed -i 's/^hosts:.*/hosts: hesiod files dns/' "$root/etc/nsswitch.conf"

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
if [ -n "${SHORT:-}" ]; then train="--width 4 --batch 50 --epochs 1 --limit-train 1500 --val 100" limit=100; fi
sora -q train --dataset fashion-mnist $train --out runs/sora
sora -q eval runs/sora --limit $limit
sora -q report runs/sora --out report && test -s report/report.html
# A name is looked up: the mirror answers that it has no such file, or not for us.
sora data fetch mnist --data-dir data --mirror http://deb.debian.org/no-such 2>fetch.log || status=$?
grep -q "HTTP 4" fetch.log || { echo "no answer of a mirror, status ${status:-0}:" && cat fetch.log && exit 1; } >&2
echo "names are looked up, from /etc/resolv.conf"
JOB
chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin SHORT="${SHORT:-}" sh /try/job.sh
