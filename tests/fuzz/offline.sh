#!/usr/bin/env bash
# Runs the fuzzers on a machine without network, of the Python that pack.sh packed for.
#   offline.sh BUNDLE.tar.xz [ARGUMENT…]     arguments as of `just fuzz`: --jobs 16 --seconds 250 zips forms
set -euo pipefail
bundle=$(realpath "$1")
shift
cd "$(dirname "$0")/../.."
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
tar -C "$place" -xJf "$bundle" --no-same-owner
PYTHONPATH=$place/site:$PWD/client python3 -m tests.fuzz --folder "$place/fuzz" "$@"
