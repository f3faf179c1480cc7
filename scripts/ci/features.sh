#!/usr/bin/env bash
# The program, the tests and the wheel have to share one build of Burn: a dependency that has other
# features in one of them makes it compile twice, ten minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
features() { cargo tree --locked -f "{p} {f}" --prefix none "$@" | sed 's/ (\*)//; s/ (proc-macro)//' | sort -u; }
status=0
tests=$(features -e normal,build,dev --workspace)
for package in sora-robust-cli sora-robust-python; do
  own=$(features -e normal,build -p $package)
  differing=$(comm -13 <(echo "$tests") <(echo "$own"))
  [ -z "$differing" ] || { echo "$package builds these with other features than the tests do:"; echo "$differing"; status=1; }
done
exit $status
