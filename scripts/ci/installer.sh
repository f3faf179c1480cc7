#!/usr/bin/env bash
# packaging/install.sh on small archives: installs a right one, also over an older one, and refuses
# one whose bytes changed, one without a checksum, one that is missing, one that does not run.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
target=$(uname -m)-unknown-linux-gnu
name=sora-$version-$target

# pack PROGRAM: a release whose program is the shell script PROGRAM.
pack() {
  rm -rf "$folder/dist" "$folder/pack"
  mkdir -p "$folder/dist" "$folder/pack/$name/man"
  printf '#!/bin/sh\n%s\n' "$1" >"$folder/pack/$name/sora"
  chmod +x "$folder/pack/$name/sora"
  echo ".TH sora 1" >"$folder/pack/$name/man/sora.1"
  python3 scripts/dist/tar.py "$folder/pack" "$name" 0 "$folder/dist/$name.tar.gz"
  (cd "$folder/dist" && sha256sum "$name.tar.gz" >"$name.sha256")
  PARTIAL=1 scripts/dist/release_files.sh "$folder/dist"
}
install() { SORA_BASE_URL=${from:-$folder/dist} SORA_PREFIX=$folder/prefix sh "$folder/dist/install.sh" >"$folder/log" 2>&1; }
installed() { "$folder/prefix/bin/sora" --version; }
cases=0 failures=0
expect() {
  cases=$((cases + 1))
  if ! eval "$2"; then
    echo "installer: $1: $2"
    cat "$folder/log"
    failures=$((failures + 1))
  fi
}

pack 'echo sora 1'
expect "a right archive" 'install && [ "$(installed)" = "sora 1" ] && [ -f "$folder/prefix/share/man/man1/sora.1" ]'
pack 'echo sora 2'
expect "over an older one" 'install && [ "$(installed)" = "sora 2" ]'
pack 'echo sora 3' && printf x >>"$folder/dist/$name.tar.gz"
expect "changed bytes" '! install && grep -q "nothing was installed" "$folder/log" && [ "$(installed)" = "sora 2" ]'
pack 'echo sora 4' && : >"$folder/dist/$name.sha256"
expect "no checksum" '! install && [ "$(installed)" = "sora 2" ]'
pack 'echo sora 5' && rm "$folder/dist/$name.tar.gz"
expect "no archive" '! install && [ "$(installed)" = "sora 2" ]'
pack 'exit 1'
expect "a program that does not run" '! install && grep -q "does not run" "$folder/log" && [ "$(installed)" = "sora 2" ]'
expect "no rest of it" '[ "$(ls -A "$folder/prefix/bin")" = sora ]'
pack 'case $0 in "$SORA_PREFIX"/bin/*) echo sora 2 ;; *) exit 126 ;; esac'
expect "a temporary folder that runs nothing" 'install && grep -q "installed sora 2" "$folder/log"'
pack 'echo sora 2' && expect "over that" 'install && [ "$(installed)" = "sora 2" ]'
pack 'echo sora 6'
server=""
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT
if command -v curl >/dev/null || command -v wget >/dev/null; then
  (cd "$folder/dist" && exec python3 -u -m http.server 0 --bind 127.0.0.1 >"$folder/server" 2>&1) &
  server=$!
  for _ in $(seq 50); do
    port=$(sed -n 's/.*port \([0-9]*\).*/\1/p' "$folder/server" 2>/dev/null) && [ -n "$port" ] && break
    sleep 0.1
  done
  # A proxy of the surroundings does not know this server.
  export no_proxy=127.0.0.1
  expect "from a server" 'from=http://127.0.0.1:$port install && [ "$(installed)" = "sora 6" ]'
  expect "a server without it" '! from=http://127.0.0.1:$port/none install && [ "$(installed)" = "sora 6" ]'
else
  scripts/ci/skipped.sh "installer: neither curl nor wget is here: the cases of a server"
fi
# The same tree gives the same bytes.
python3 scripts/dist/tar.py "$folder/pack" "$name" 0 "$folder/again.tar.gz"
expect "bytes" 'cmp -s "$folder/again.tar.gz" "$folder/dist/$name.tar.gz"'
echo "installer: $cases cases, $failures failed"
[ $failures = 0 ]
