#!/usr/bin/env bash
# Builds the program as it is published and packs it: an archive with the program, manual pages,
# completions and the licences of everything inside, a list of its components (CycloneDX), and their
# SHA-256. On Linux the program is linked statically with glibc: it runs under any distribution.
#
#   scripts/dist/build.sh [TARGET]          writes to dist/ ($OUT), builds in target/ ($CARGO_TARGET_DIR)
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${1:-$(rustc -vV | sed -n 's/^host: //p')}
out=${OUT:-dist}
built=${CARGO_TARGET_DIR:-target}/$target/dist
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
name=sora-$version-$target
exe=""

case $target in
  *-linux-gnu) export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" ;;
  *-windows-msvc) export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" exe=.exe ;;
  *-windows-gnu) exe=.exe ;;
esac
# What makes a first build shorter is undone: every part is optimised.
optimised=()
while read -r crate; do
  optimised+=(--config "profile.dist.package.$crate.opt-level=3")
done < <(sed -n 's/^\[profile\.release\.package\.\([a-z-]*\)\]$/\1/p' Cargo.toml)
# The target is named even where it is the host: only then do the flags leave build scripts alone.
cargo build --profile dist --locked --target "$target" "${optimised[@]}" -p sora-robust-cli --bin sora \
  ${JOBS:+-j "$JOBS"}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$out" "$folder/$name/completions" "$folder/$name/man"
cp "$built/sora$exe" README.md CHANGELOG.md LICENSE "$folder/$name/"
case $target in *-linux-gnu) cp packaging/Containerfile "$folder/$name/" ;; esac
python3 scripts/dist/licences.py "$target" >"$folder/$name/LICENCES-OF-PARTS.txt"
sora=$folder/$name/sora$exe
if "$sora" --version >/dev/null 2>&1; then
  "$sora" man "$folder/$name/man"
  "$sora" completions bash >"$folder/$name/completions/sora.bash"
  "$sora" completions zsh >"$folder/$name/completions/_sora"
  "$sora" completions fish >"$folder/$name/completions/sora.fish"
else
  echo "the program does not run here: no manual pages and completions in the archive" >&2
fi
if command -v cargo-cyclonedx >/dev/null; then
  # It writes beside the manifest of every member.
  cargo cyclonedx --quiet --format json --target "$target" --override-filename sora-bom
  mv crates/cli/sora-bom.json "$out/$name.cdx.json"
  python3 scripts/dist/components.py "$out/$name.cdx.json" "$target"
  rm -f crates/*/sora-bom.json
  cp "$out/$name.cdx.json" "$folder/$name/"
else
  echo "no cargo-cyclonedx (cargo install cargo-cyclonedx): no list of components" >&2
fi

case $target in
  *windows*) archive=$name.zip && (cd "$folder" && python3 -m zipfile -c "$archive" "$name") && mv "$folder/$archive" "$out/" ;;
  *)
    # The same bytes from the same tree: one owner, one order, the commit's time.
    archive=$name.tar.gz
    when=$(git log -1 --format=%ct 2>/dev/null || date +%s)
    python3 scripts/dist/tar.py "$folder" "$name" "$when" "$out/$archive"
    ;;
esac
(cd "$out" && python3 -c 'import hashlib, sys
for name in sys.argv[1:]: print(hashlib.sha256(open(name, "rb").read()).hexdigest() + "  " + name)' \
  "$name".*[!6] >"$name.sha256")
ls -l "$sora" "$out/$name".*
