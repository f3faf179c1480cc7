#!/bin/sh
# Puts Fashion-MNIST on a Debian-like machine, if it is not there yet: the data set of the README's first command.
set -eu
set_path=/usr/share/datasets/fashion-mnist
[ -e "$set_path" ] && exit 0

fail() {
  echo "setup: $1; get the data with: cargo run --release -- data fetch fashion-mnist" >&2
  exit 1
}

command -v apt-get >/dev/null || fail "no apt-get here"
as_root=""
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || fail "apt-get needs root, and there is no sudo here"
  as_root=sudo
fi
$as_root apt-get update -qq && $as_root apt-get install -y -qq dataset-fashion-mnist ||
  fail "apt-get could not install dataset-fashion-mnist"
