#!/usr/bin/env bash
# Vulkan on the CPU: fetches Mesa's lavapipe beside the system and runs a command on it. Nothing is installed.
#
#   scripts/gpu/lavapipe.sh [-C FOLDER] [COMMAND ...]
#   scripts/gpu/lavapipe.sh target/release/sora train --device vulkan ...
#
# Packages of Debian's sid are downloaded, checked against Debian's keys and unpacked into FOLDER (default: sora/lavapipe in
# $XDG_CACHE_HOME or ~/.cache; about 70 MB to download, 400 MB unpacked), once. Older drivers crash on the kernels of
# CubeCL: Mesa 22.3 and 25.0 do, 26.2 works. Mesa needs sid's C library, so COMMAND is started by that tree's loader; it
# must be a program, not a script. Without COMMAND the folder is made ready and its packages' versions are printed.
#
# MIRROR (default http://deb.debian.org/debian) may be a day of http://snapshot.debian.org. Needs apt, dpkg-deb and the
# package debian-archive-keyring.
set -euo pipefail
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sora/lavapipe
if [ "${1:-}" = -C ]; then
  cache=${2:?"usage: $0 [-C FOLDER] [COMMAND ...]"}
  shift 2
fi
mirror=${MIRROR:-http://deb.debian.org/debian}
keys=/usr/share/keyrings/debian-archive-keyring.gpg
packages=(mesa-vulkan-drivers libvulkan1 libc6 libstdc++6 libgcc-s1)

fetch() {
  [ -e "$keys" ] || { echo "$0: $keys is missing; install debian-archive-keyring" >&2; exit 2; }
  if [ -n "$(ls -A "$cache" 2>/dev/null)" ]; then
    echo "$0: $cache holds something else; name a folder that is empty or not there" >&2
    exit 2
  fi
  rm -rf "$cache.new"
  local state=$cache.new/apt
  mkdir -p "$state"/{lists,archives,etc}/partial "$cache.new/root"
  : >"$state/status"
  echo "deb [signed-by=$keys] $mirror sid main" >"$state/sources.list"
  local options=(-o "Dir::State=$state" -o "Dir::State::lists=$state/lists" -o "Dir::State::status=$state/status"
    -o "Dir::Cache=$state" -o "Dir::Cache::archives=$state/archives" -o "Dir::Etc::SourceList=$state/sources.list"
    -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null -o Acquire::Languages=none
    -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o Debug::NoLocking=1 -o Acquire::Check-Valid-Until=false
    -o APT::Sandbox::User=root -o Acquire::Retries=3 -qq)
  apt-get "${options[@]}" update
  apt-get "${options[@]}" install --yes --download-only --no-install-recommends "${packages[@]}" >/dev/null
  local file
  for file in "$state"/archives/*.deb; do
    dpkg-deb --extract "$file" "$cache.new/root"
    dpkg-deb --show "$file" >>"$cache.new/versions"
  done
  rm -rf "$state" "$cache.new/root/usr/share/doc"
  mkdir -p "$cache"
  rmdir "$cache"
  mv "$cache.new" "$cache"
}

if [ ! -e "$cache/versions" ]; then
  mkdir -p "$(dirname "$cache")"
  exec 9>"$cache.lock"
  flock 9
  [ -e "$cache/versions" ] || fetch
  exec 9>&-
fi
if [ $# = 0 ]; then
  echo "$cache: $(grep mesa-vulkan "$cache/versions" | tr '\t' ' ')"
  exit
fi
root=$cache/root
library=$root/usr/lib/x86_64-linux-gnu
loader=$(find "$root" -name 'ld-linux-x86-64.so.2' | head -1)
program=$(command -v "$1") || { echo "$0: no program '$1'" >&2; exit 2; }
shift
# A folder for shader caches that is nobody else's: the system's Mesa may be of another version.
export VK_DRIVER_FILES=$root/usr/share/vulkan/icd.d/lvp_icd.json MESA_SHADER_CACHE_DIR=$cache/shaders
export LP_NUM_THREADS=${LP_NUM_THREADS:-$(nproc)}
exec "$loader" --library-path "$library:$root/lib/x86_64-linux-gnu" "$program" "$@"
