#!/usr/bin/env bash
# Builds the tests with sanitizers and runs them.
#   scripts/sanitize.sh [address|thread] [ctest arguments]     e.g.  scripts/sanitize.sh thread -R data
# address (the default): build-asan, AddressSanitizer with leaks and UndefinedBehaviorSanitizer, on every
#   test but those that compile other programs or look at sources only.
# thread: build-tsan, ThreadSanitizer, on the tests of what has threads of its own: loader, checkpoint
#   saver, encoder cache, pages of PDFs, tokenizers, child processes, whole runs.
# With ctest arguments, on the tests that these choose.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=address
case ${1:-} in address | thread) kind=$1; shift ;; esac

# Halting on the first finding makes the test fail; without it UBSan would only print.
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1:${UBSAN_OPTIONS:-}"
# One OpenMP thread where a test does not ask for more: tests run side by side instead. For thread see
# also tsan.supp; what stays under test there are threads of ours (std::thread).
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
targets=()
if [ "$kind" = address ]; then
  build=build-asan sanitizers=address,undefined
  # Null for what cannot be had, as without it: tests ask for more than there is.
  export ASAN_OPTIONS="detect_stack_use_after_return=1:allocator_may_return_null=1:${ASAN_OPTIONS:-}"
  export LSAN_OPTIONS="suppressions=$PWD/scripts/lsan.supp:print_suppressions=0:${LSAN_OPTIONS:-}"
  chosen=(-E '^(library\.install|include_check|function_lengths|oracle\..*)$')
else
  build=build-tsan sanitizers=thread
  export TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1:suppressions=$PWD/scripts/tsan.supp:${TSAN_OPTIONS:-}"
  chosen=(-R '^(core\.(notice|parallel|profile)_test|core\.io\..*|data\.samples\.(loader|pairs|source)_test|data\.pages\.builder_test|data\.synthetic\.synthetic_test|data\.tokenizer\.tokenizer_test|recipes\.checkpoint\..*|recipes\.train\.(train|curriculum|encoder_cache)_test)$')
  [ $# -gt 0 ] || targets=(lectern tests.core tests.data tests.recipes)
fi
[ $# -eq 0 ] || chosen=("$@")

scripts/install-deps.sh
mkdir -p "$build"
# -O1: the first sources of core take 41 s of processor time; at -O2 -g they had not ended after 70.
cmake -S . -B "$build" -G Ninja -DLECTERN_CUDA=OFF -DLECTERN_TESTS=ON -DLECTERN_SANITIZE="$sanitizers" \
  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1" \
  >"$build/configure.log" 2>&1 ||
  { cat "$build/configure.log" >&2; exit 1; }
ninja -C "$build" "${targets[@]}"
ctest --test-dir "$build" --output-on-failure -j "$(nproc)" "${chosen[@]}"
