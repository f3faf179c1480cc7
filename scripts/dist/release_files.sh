#!/usr/bin/env bash
# scripts/dist/release_files.sh DIST: from the archives in DIST, what a release needs beside them:
# install.sh, the Homebrew formula sora.rb, and SHA256SUMS over all files. A target of the formula
# whose archive is not there is an error, unless PARTIAL=1 (a try on one machine) leaves it unfilled.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$1"
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
sed "s/@VERSION@/$version/g" "$root/packaging/install.sh" >install.sh
sed "s/@VERSION@/$version/g" "$root/packaging/sora.rb.in" >sora.rb
for target in $(sed -n 's/.*@SHA256 \(.*\)@.*/\1/p' sora.rb); do
  if [ -f "sora-$version-$target.sha256" ]; then
    sum=$(sed -n 's/^\([0-9a-f]*\)  .*\.tar\.gz$/\1/p' "sora-$version-$target.sha256")
    sed -i.bak "s/@SHA256 $target@/$sum/" sora.rb && rm sora.rb.bak
  elif [ -z "${PARTIAL:-}" ]; then
    echo "release_files.sh: no archive for $target" >&2
    exit 1
  fi
done
cat sora-"$version"-*.sha256 >SHA256SUMS
