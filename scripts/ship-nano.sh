#!/usr/bin/env bash
# Turns a training of nano into what lectern ships: OUT with config.json, model.safetensors (bf16, at most
# 12 MB), tokenizer.json, the recipes as they ran, the learning curve, the scores beside tesseract, and the card
# README.md, whose figures all come from files of the run.
#
# usage: scripts/ship-nano.sh [OPTION...] RUN
#   RUN              has the run folders pretrain and, where they were trained, stage2 and stage3: the
#                    newest checkpoint of the last of them is shipped (recipes/configs/nano/*.toml: out/nano)
#   --out OUT        recipes/nano
#   --data DATA      what scripts/nano-data.sh made: where data.tokenizer of the run's recipe lies
#   --words N ...    as for scripts/eval-beside-tesseract.sh, which does the scoring; kept in RUN/eval; more than
#                    there (3000 words, 2000 lines, 800 regions, 20 pages): of 500 words, stages differ by chance
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
lectern=${LECTERN_BINARY:-$root/build/lectern}
out=$root/recipes/nano run='' data='' sizes=(--words 3000 --lines 2000 --regions 800 --pages 20)
usage() { sed -n '6,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=${2:?}; shift ;;
    --data) data=${2:?}; shift ;;
    --words|--lines|--regions|--pages) sizes+=("$1" "${2:?}"); shift ;;
    -*) usage ;;
    *) [ -z "$run" ] || usage; run=$1 ;;
  esac
  shift
done
[ -n "$run" ] || usage
fail() { echo "ship-nano: $*" >&2; exit 1; }
[ -x "$lectern" ] || fail "$lectern is not there: build it first"
command -v python3 >/dev/null || fail "the card needs python3: apt-get install python3"

stages=()
for stage in pretrain stage2 stage3; do
  [ ! -s "$run/$stage/metrics.jsonl" ] || stages+=("$stage")
done
[ ${#stages[@]} -gt 0 ] || fail "$run must have pretrain/metrics.jsonl"
last=${stages[-1]}
if [ -z "$data" ]; then
  data=$(dirname "$(sed -n 's/^tokenizer = "\(.*\)"$/\1/p' "$run/pretrain/config.toml" | head -n 1)")
fi
[ -s "$data/shards/manifest.json" ] || fail "$data/shards/manifest.json is not there: name the data with --data"

# newest STAGE: its newest complete checkpoint.
newest() { find "$run/$1/checkpoints" -maxdepth 2 -name COMPLETE | sort | tail -n 1 | xargs -r dirname; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
folders=()
for stage in "${stages[@]}"; do
  checkpoint=$(newest "$stage")
  [ -n "$checkpoint" ] || fail "$run/$stage/checkpoints has no complete checkpoint"
  # A copy: a run that still trains deletes old checkpoints.
  cp -r "$checkpoint" "$work/$stage"
  rm -f "$work/$stage"/optimizer*.safetensors
  scores=$run/eval/$stage-$(basename "$checkpoint")
  model=$work/$stage
  if [ "$stage" = "$last" ]; then
    "$lectern" export --checkpoint "$work/$stage" --format lectern --dtype bf16 --out "$work/nano"
    model=$work/nano
    scores=$scores-bf16
  fi
  beside=()
  [ "$stage" = "$last" ] || beside=(--no-tesseract)
  # Not ready before all levels are: an interrupted scoring goes on.
  LECTERN_BINARY=$lectern "$root/scripts/eval-beside-tesseract.sh" --checkpoint "$model" \
    --shards "$data/shards/validation" "${sizes[@]}" "${beside[@]}" "$scores"
  folders+=("$stage=$scores")
done
bytes=$(stat -c %s "$work/nano/model.safetensors")
[ "$bytes" -le 12000000 ] || fail "model.safetensors must be at most 12000000 bytes, got $bytes"

echo "nano ($last, $(basename "$(newest "$last")"), bf16)" >"${folders[-1]#*=}/model.txt"
"$lectern" report --beside "${folders[-1]#*=}" --out "${folders[-1]#*=}/report.html" >/dev/null
cp "${folders[-1]#*=}/results.json" "$work/nano/scores.json"
"$root/scripts/nano_card.py" --run "$run" --data "$data" --model "$work/nano" \
  --revision "$(sed -n 's/.*"git_revision": *"\([^"]*\)".*/\1/p' "$work/$last/state.json")" \
  --ranks "$(sed -n 's/.*"dp": *\([0-9]*\).*/\1/p' "$work/$last/state.json")" "${folders[@]}"
mkdir -p "$out"
rm -f "$out"/*
cp "$work/nano"/* "$out/"
echo "ship-nano: $out: $(du -sh "$out" | cut -f1), card $out/README.md; report ${folders[-1]#*=}/report.html"
