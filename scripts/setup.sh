#!/bin/sh
# Puts Fashion-MNIST on a Debian-like machine, if it is not there yet: the data set of the README's first command.
set -eu
set_path=/usr/share/datasets/fashion-mnist
[ -e "$set_path" ] && exit 0
as_root=""
[ "$(id -u)" = 0 ] || as_root=sudo
if ! command -v apt-get >/dev/null; then
  echo "setup: no apt-get here; get the data with: cargo run --release -- data fetch fashion-mnist" >&2
  exit 1
fi
$as_root apt-get update -qq
$as_root apt-get install -y -qq dataset-fashion-mnist
