#!/bin/sh
# The CHANGELOG's part about the version of this tree.
set -eu
cd "$(dirname "$0")/../.."
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
notes=$(awk -v head="## $version" 'index($0, "## ") == 1 { on = index($0, head) == 1; next } on' CHANGELOG.md)
if [ -z "$notes" ]; then
  echo "notes.sh: CHANGELOG.md has nothing about $version" >&2
  exit 1
fi
printf '%s\n' "$notes"
