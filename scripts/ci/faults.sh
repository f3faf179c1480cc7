#!/usr/bin/env bash
# The short form of scripts/faults.sh, a minute, where its tools are.
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  scripts/ci/skipped.sh "Python 3.11 or newer is not here"
elif ! command -v "${CC:-cc}" >/dev/null; then
  scripts/ci/skipped.sh "no C compiler is here"
else
  exec scripts/faults.sh --short
fi
