#!/usr/bin/env bash
# The program, the tests and the wheel have to share one build of Burn: a dependency that has other
# features in one of them makes it compile twice, ten minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
features() { cargo tree --locked -f "{p} {f}" --prefix none "$@" 2>/dev/null | sed 's/ (\*)//; s/ (proc-macro)//' | sort -u; }
status=0
for package in sora-robust-cli sora-robust-python; do
  differing=$(comm -13 <(features -e normal,build,dev --workspace) <(features -e normal,build -p $package))
  [ -z "$differing" ] || { echo "$package builds these with other features than the tests do:"; echo "$differing"; status=1; }
done
exit $status
