#!/usr/bin/env bash
# Every figure of "Faster and smaller than PyTorch on the CPU", one after the other:
#   bench/compare.sh [FOLDER]         (default: build/compare)
# Needs build/lectern (./test.sh) and the oracle environment (scripts/oracle-venv.sh, or
# LECTERN_ORACLE_VENV). Takes about an hour on two cores; nothing else should run meanwhile. Run it
# again after an interruption: rows that FOLDER/step.json has are kept.
#   PAIRS=5 STEPS=6   pairs of runs, and timed steps in a run
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-build/compare}
mkdir -p "$out"

echo "== one training step, beside PyTorch"
bench/compare_torch.py --variants all --cached --pairs "${PAIRS:-5}" --steps "${STEPS:-6}" \
  --out "$out/step.json" --resume | tee "$out/step.md"

echo "== where the time of a step goes"
for stage in 1 2 3; do
  for dtype in fp32 bf16; do
    build/lectern bench step --config bench/bench_small.json --stage "$stage" --dtype "$dtype" \
      --steps "${STEPS:-6}" --profile >"$out/profile-$stage-$dtype.md"
  done
done
bench/profile_table.py "$out"/profile-[123]-fp32.md "$out"/profile-[123]-bf16.md | tee "$out/profile.md"

echo "== full size: generation, beside PyTorch"
# ---- bench/compare_generate.py: time to the first token, tokens/s, memory ------------------------
if [ -x bench/compare_generate.py ]; then
  bench/compare_generate.py --out "$out/generate.json" | tee "$out/generate.md"
else
  echo "not measured: bench/compare_generate.py is not there"
fi

echo "== instructions of key operations"
bench/check.py | tee "$out/instructions.txt" || [ "${PIPESTATUS[0]}" -eq 77 ]
