#!/usr/bin/env bash
# What docs/library.md says, in an empty folder: installs the build, builds examples/ against it as a
# project that knows nothing of this one, and runs what comes out.
#   tests/library/install.sh BUILD
set -euo pipefail
source=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

cmake --install "$build" --prefix "$out/prefix" >"$out/log" || { tail "$out/log"; exit 1; }
cp -r "$source/examples" "$out/examples"
# Nothing that is installed may lead back to where it was built.
if grep -rlE "$source|$build" "$out/prefix/lib/cmake"; then
  echo "the package names the sources or the build" >&2
  exit 1
fi
cmake -G Ninja -S "$out/examples" -B "$out/build" "-DCMAKE_PREFIX_PATH=$out/prefix" >"$out/log" ||
  { tail "$out/log"; exit 1; }
cmake --build "$out/build" >"$out/log" || { tail -n 40 "$out/log"; exit 1; }
"$out/build/train_network"
"$out/build/own_operation"

# The installed program knows its recipes and its model wherever it is called from.
cd "$out"
said=$(prefix/bin/lectern train quickstart/stage1 2>&1 || true)
grep -q "out/quickstart/" <<<"$said" || { echo "recipes are not found by name: $said" >&2; exit 1; }
prefix/bin/lectern ocr "$source/docs/report.png" --max-tokens 2 >"$out/log" || { tail "$out/log"; exit 1; }
