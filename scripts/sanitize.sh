#!/usr/bin/env bash
# Builds the tests with sanitizers and runs them.
#   scripts/sanitize.sh [address|thread] [ctest arguments]     e.g.  scripts/sanitize.sh thread -R data
# address (the default): build-asan, AddressSanitizer with leaks and UndefinedBehaviorSanitizer.
# thread: build-tsan, ThreadSanitizer.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=address
case ${1:-} in address | thread) kind=$1; shift ;; esac

# Halting on the first finding makes the test fail; without it UBSan would only print.
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1:${UBSAN_OPTIONS:-}"
if [ "$kind" = address ]; then
  build=build-asan sanitizers=address,undefined
  export ASAN_OPTIONS="detect_stack_use_after_return=1:${ASAN_OPTIONS:-}"
else
  build=build-tsan sanitizers=thread
  # One OpenMP thread where a test does not ask for more: see tsan.supp. What stays under test is the
  # loader, the caches and the child processes, whose threads are std::thread.
  export OMP_NUM_THREADS=1
  export TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1:suppressions=$PWD/scripts/tsan.supp:${TSAN_OPTIONS:-}"
fi

scripts/install-deps.sh
mkdir -p "$build"
cmake -S . -B "$build" -G Ninja -DLECTERN_CUDA=OFF -DLECTERN_TESTS=ON -DLECTERN_SANITIZE="$sanitizers" \
  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O2 -g" \
  >"$build/configure.log" 2>&1 ||
  { cat "$build/configure.log" >&2; exit 1; }
ninja -C "$build"
ctest --test-dir "$build" --output-on-failure "$@"
