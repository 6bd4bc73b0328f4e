#!/usr/bin/env bash
# Packs the Python packages that the fuzzers need on a machine that reaches no network. About 30 MB, for x86-64 Linux.
#   pack.sh OUT.tar.xz [PYTHON]     PYTHON: the version that is there (3.12)
# On the machine: offline.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(realpath -m "$1")
python=${2:-3.12}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What the locks have for the services, and of the tools those that the fuzzers import.
tools='atheris|httpx|httpcore|h11|anyio|idna|certifi|sniffio|typing-extensions|rich|markdown-it-py|mdurl|pygments|typer|click|shellingham'
awk -v "tools=^($tools)==" '/^[a-z]/ { is_tool = $0 ~ tools } is_tool' requirements-dev.txt >"$work/tools.txt"
python3 -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --target "$work/site" \
  --python-version "$python" --implementation cp --only-binary=:all: \
  --platform manylinux_2_34_x86_64 --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  --require-hashes --requirement requirements.txt --requirement "$work/tools.txt"
rm -f "$work"/site/{asan,ubsan}_with_fuzzer.so # for extensions in C that are built for them
mkdir -p "$(dirname "$out")"
tar -C "$work" -c site | xz -T0 >"$out"
ls -l "$out"
