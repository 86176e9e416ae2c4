#!/usr/bin/env bash
# Every check and every benchmark that needs a GPU, in one call under ten minutes, as one table.
# From the source folder (after ./test.sh) or from a bundle (scripts/bundle.sh). Results that are
# worth keeping go to bench/GPU.md with date, card, driver and this command.
#
# usage: bench/gpu.sh [CONFIG_JSON]      config.json of the model of the speed rows; without one they
#                                        use bench/bench_small.json
set -uo pipefail
cd "$(dirname "$0")/.."
config=${1:-bench/bench_small.json}

if [[ -x ./run ]]; then
  program() { ./run "$@"; }
  tests=(./run gpu.tests)
else
  program() { case $1 in gpu.*) build/tests/"$@" ;; *) build/"$@" ;; esac; }
  tests=(build/tests/gpu.tests)
fi
export -f program
export LECTERN_SOURCE=${LECTERN_SOURCE:-$PWD}

if ! nvidia-smi -L >/dev/null 2>&1; then
  echo "skipped: no GPU (nvidia-smi finds none)"
  exit 0
fi
failed=0
row() { printf '| %-46s | %-10s | %s |\n' "$1" "$2" "$3"; }

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
program lectern info || exit 1
row what result detail
row --- --- ---
for suite in $(program gpu.tests --gtest_list_tests | grep -E '^[A-Z][A-Za-z0-9]*\.$'); do
  if output=$(timeout 120 bash -c "program gpu.tests --gtest_filter=$suite*" 2>&1); then
    row "${suite%.}" ok "$(grep -oE '[0-9]+ tests? from [0-9]+ test suites? ran' <<<"$output" | head -n 1)"
  else
    row "${suite%.}" FAILED "$(grep -m1 -E 'Failure|error|worst' <<<"$output" | cut -c1-80)"
    failed=1
  fi
done
for tool in memcheck racecheck; do
  if ! command -v compute-sanitizer >/dev/null; then
    row "compute-sanitizer $tool" skipped "not on this machine"
  elif timeout 150 compute-sanitizer --tool "$tool" --target-processes all --error-exitcode 9 "${tests[@]}" \
    --gtest_filter=-CudaTraining*:CudaReading* >/tmp/lectern-sanitizer.log 2>&1; then
    row "compute-sanitizer $tool" ok ""
  else
    row "compute-sanitizer $tool" FAILED "$(tail -n 1 /tmp/lectern-sanitizer.log | cut -c1-80)"
    failed=1
  fi
done
if program lectern parity tests/fixtures/ocr2_A --device cuda >/tmp/lectern-parity.log 2>&1; then
  row "parity ocr2_A, fp32" ok "$(tail -n 1 /tmp/lectern-parity.log)"
else
  row "parity ocr2_A, fp32" FAILED "$(tail -n 1 /tmp/lectern-parity.log | cut -c1-80)"
  failed=1
fi
for dtype in fp32 bf16; do
  for stage in 1 2 3; do
    if line=$(timeout 120 bash -c "program lectern bench step --config $config --batch 1 \
        --crops 6 --text 1024 --steps 10 --stage $stage --dtype $dtype --device cuda" 2>&1 | tail -n 1); then
      row "step, stage $stage, $dtype" "$(sed -E 's/.*"seconds_median":([0-9.e-]+).*/\1/' <<<"$line") s" \
        "peak $(sed -E 's/.*"peak_bytes":([0-9]+).*/\1/' <<<"$line") bytes"
    else
      row "step, stage $stage, $dtype" FAILED "$(cut -c1-80 <<<"$line")"
      failed=1
    fi
  done
done
echo
if ! timeout 180 bash -c "program gpu.kernels"; then
  row "gpu.kernels" FAILED ""
  failed=1
fi
exit "$failed"
