#!/bin/sh
# Installs the program sora from its release: finds the archive for this machine, checks its SHA-256
# and puts the program and its manual pages below a prefix.
#
#   curl -LsSf https://github.com/sora-robust/sora/releases/latest/download/install.sh | sh
#
# SORA_PREFIX    where to (default ~/.local): PREFIX/bin/sora, PREFIX/share/man/man1
# SORA_BASE_URL  where from: an address, or a folder with the files of a release
set -eu

version=@VERSION@
base=${SORA_BASE_URL:-https://github.com/sora-robust/sora/releases/download/v$version}
prefix=${SORA_PREFIX:-${HOME:?HOME is not set: say SORA_PREFIX}/.local}

fail() {
  echo "install.sh: $*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

target() {
  case $(uname -s)/$(uname -m) in
    Linux/x86_64 | Linux/amd64) echo x86_64-unknown-linux-gnu ;;
    Linux/aarch64 | Linux/arm64) echo aarch64-unknown-linux-gnu ;;
    Darwin/x86_64) echo x86_64-apple-darwin ;;
    Darwin/arm64) echo aarch64-apple-darwin ;;
    *) fail "no archive for $(uname -s) on $(uname -m); with Rust: cargo install sora-robust-cli" ;;
  esac
}

# fetch NAME: the release's file NAME, into the folder $work.
fetch() {
  case $base in
    http://* | https://*)
      if have curl; then
        curl --proto '=https,http' -LsSf "$base/$1" -o "$work/$1"
      elif have wget; then
        wget -q "$base/$1" -O "$work/$1"
      else
        fail "neither curl nor wget is here"
      fi || fail "$base/$1 cannot be had"
      ;;
    *) cp "$base/$1" "$work/$1" || fail "$base/$1 cannot be read" ;;
  esac
}

sha256() {
  if have sha256sum; then
    sha256sum "$1" | cut -d ' ' -f 1
  elif have shasum; then
    shasum -a 256 "$1" | cut -d ' ' -f 1
  elif have openssl; then
    openssl dgst -sha256 "$1" | sed 's/.* //'
  else
    fail "no sha256sum, shasum or openssl is here to check the archive with"
  fi
}

main() {
  name=sora-$version-$(target)
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM HUP
  fetch "$name.sha256"
  fetch "$name.tar.gz"
  wanted=$(sed -n "s/^\([0-9a-f]\{64\}\)  $name.tar.gz\$/\1/p" "$work/$name.sha256")
  [ -n "$wanted" ] || fail "$name.sha256 does not name $name.tar.gz"
  found=$(sha256 "$work/$name.tar.gz")
  [ "$found" = "$wanted" ] || fail "$name.tar.gz has SHA-256 $found, the release says $wanted: nothing was installed"
  tar -xzf "$work/$name.tar.gz" -C "$work"
  mkdir -p "$prefix/bin" "$prefix/share/man/man1"
  # Beside it first: a sora that runs keeps its file, and there is always a whole one. It is tried there, too: a folder
  # of temporary files often runs no programs.
  new=$prefix/bin/.sora.new
  trap 'rm -rf "$work" "$new"' EXIT
  cp "$work/$name/sora" "$new"
  "$new" --version >/dev/null || fail "the program does not run on this machine, in $prefix/bin: nothing was installed"
  mv "$new" "$prefix/bin/sora"
  cp "$work/$name"/man/*.1 "$prefix/share/man/man1/"
  echo "installed $("$prefix/bin/sora" --version) as $prefix/bin/sora"
  case :$PATH: in
    *:"$prefix/bin":*) ;;
    *) echo "put it on the path:  export PATH=\"$prefix/bin:\$PATH\"" ;;
  esac
}

# At the end, so that half a script does nothing.
main
