#!/bin/sh
# Builds every libFuzzer target of tests/fuzz with clang and the address sanitizer and runs each.
#   scripts/fuzz.sh [SECONDS [TARGET...]]      60 seconds each by default
# Findings and corpora stay in build-fuzz/corpus/<target>; exits 1 when a target found something.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -gt 0 ] && shift
build=${LECTERN_FUZZ_BUILD:-build-fuzz}
compiler=$(command -v clang++-14 || command -v clang++) || {
  echo "fuzz.sh: clang++ is missing; apt-get install clang libomp-dev" >&2
  exit 1
}
cmake -S . -B "$build" -G Ninja -DLECTERN_CUDA=OFF -DCMAKE_CXX_COMPILER="$compiler" -DLECTERN_FUZZ=ON \
  -DLECTERN_TESTS=OFF -DLECTERN_SANITIZE=fuzzer-no-link,address -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 # -O2 takes minutes for single kernels, which no target runs
if [ $# -eq 0 ]; then
  ninja -C "$build" fuzzers
  set -- $(cd tests/fuzz && ls ./*_fuzz.cpp | sed 's|./||; s|\.cpp$||')
else
  ninja -C "$build" "$@"
fi
failed=
for target in "$@"; do
  corpus=$build/corpus/$target
  mkdir -p "$corpus"
  # Seeds in the repository: tests/fuzz/seeds/<target>/, and recipes for the recipe reader.
  seeds=
  [ -d "tests/fuzz/seeds/$target" ] && seeds=tests/fuzz/seeds/$target
  if [ "$target" = config_fuzz ]; then
    for recipe in recipes/configs/*/*.toml; do
      { echo "seed=1"; cat "$recipe"; } >"$corpus/$(basename "$(dirname "$recipe")")-$(basename "$recipe")"
    done
  fi
  case $target in
    tokenizer_fuzz) kind=tokenizer.json ;;
    safetensors_fuzz) kind='*.safetensors' ;;
    model_config_fuzz) kind=config.json ;;
    shard_fuzz) kind='*.h5' ;;
    *) kind= ;;
  esac
  if [ -n "$kind" ]; then
    find tests/fixtures -name "$kind" -size -64k | while read -r file; do
      cp "$file" "$corpus/$(echo "$file" | tr / -)"
    done
  fi
  echo "== $target, $seconds s"
  "$build/fuzz/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -max_len=65536 -artifact_prefix="$corpus/../$target-" -print_final_stats=1 \
    "$corpus" $seeds 2>"$build/$target.log" || failed="$failed $target"
  grep -E 'stat::number_of_executed_units|ERROR|SUMMARY' "$build/$target.log" || true
done
if [ -n "$failed" ]; then
  echo "fuzz.sh: findings in$failed; see $build/<target>.log and $build/corpus/" >&2
  exit 1
fi
