#!/usr/bin/env bash
# Builds everything and runs every test. Under 25 minutes on two cores from a bare Debian 12.
#   ./test.sh [--long] [ctest arguments]      e.g.  ./test.sh -R attention
# --long: every mesh and stage, and ranks killed again and again, instead of one of each kind.
set -euo pipefail
cd "$(dirname "$0")"
if [ "${1-}" = --long ]; then
  export LECTERN_LONG=1
  shift
fi
scripts/install-deps.sh
# One GPU architecture: this machine's, or where it has no GPU the newest that is supported.
architecture=90a-real
if nvidia-smi -L >/dev/null 2>&1; then architecture=native; fi
cmake -S . -B build -G Ninja -DLECTERN_TESTS=ON -DLECTERN_CUDA=ON \
  -DLECTERN_CUDA_ARCHITECTURES=$architecture >build-configure.log 2>&1 || { cat build-configure.log >&2; exit 1; }
rm -f build-configure.log
ninja -C build
ctest --test-dir build --output-on-failure "$@"
# Instructions of the smallest operations against the baseline; 77 means that they cannot be counted
# here (no valgrind, another compiler).
if [ $# -eq 0 ]; then bench/check.py --few || [ $? -eq 77 ]; fi
