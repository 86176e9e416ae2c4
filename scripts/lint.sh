#!/usr/bin/env bash
# Runs clang-tidy 14 with .clang-tidy (warnings are errors) over our .cpp files. CUDA sources are
# left to nvcc: clang-tidy 14 cannot read CUDA 13's headers.
#   scripts/lint.sh [FILE...]                 all .cpp of the build by default
# LECTERN_LINT_BUILD names a build folder whose compile_commands.json to use instead of configuring
# build-lint; LECTERN_LINT_JOBS how many files at a time (default: the number of cores).
set -euo pipefail
cd "$(dirname "$0")/.."

tidy=$(command -v clang-tidy-14) || {
  echo "lint.sh: clang-tidy-14 is missing; apt-get install clang-tidy-14 libomp-14-dev" >&2
  exit 1
}
build=${LECTERN_LINT_BUILD:-build-lint}
if [ -z "${LECTERN_LINT_BUILD:-}" ]; then
  mkdir -p "$build"
  cmake -S . -B "$build" -G Ninja -DLECTERN_CUDA=OFF -DLECTERN_TESTS=ON -DLECTERN_UNITY=OFF >"$build/configure.log" 2>&1 ||
    { cat "$build/configure.log" >&2; exit 1; }
fi
[ -f "$build/compile_commands.json" ] || {
  echo "lint.sh: $build/compile_commands.json is missing" >&2
  exit 1
}

files=("$@")
if [ ${#files[@]} -eq 0 ]; then
  scripts/function-lengths.sh
  mapfile -t files < <(grep -o '"file": "[^"]*"' "$build/compile_commands.json" | cut -d'"' -f4 |
    grep "^$PWD/" | sed "s|^$PWD/||" | sort -u)
fi

# The commands are g++'s: clang must not stumble over the options that only g++ knows.
lint_one() {
  local log
  log=$("$tidy" -p "$build" --quiet --extra-arg=-Wno-unknown-warning-option \
    --extra-arg=-Wno-ignored-optimization-argument "$1" 2>&1) && return 0
  printf '%s\n' "$log" | grep -vE '^[0-9]+ warnings? (and [0-9]+ errors? )?generated|^Suppressed|^Use -' >&2
  echo "lint.sh: $1 fails" >&2
  return 1
}
export -f lint_one
export tidy build
# shellcheck disable=SC2016  # $0 is for the inner shell
printf '%s\0' "${files[@]}" |
  xargs -0 -n 1 -P "${LECTERN_LINT_JOBS:-$(nproc)}" bash -c 'lint_one "$0"' || {
  echo "lint.sh: see above" >&2
  exit 1
}
echo "lint.sh: ${#files[@]} files, no finding"
