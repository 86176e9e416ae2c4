#!/usr/bin/env bash
# From a bare Debian 12 machine to a small OCR model that has begun to read: installs packages, builds,
# makes training shards from PDFs that Debian ships, trains the three stages on the CPU, reads words of
# documents it never saw, exports, and writes out/quickstart/report.html. Under 25 minutes on two cores.
# Stage 1 goes on from recipes/nano, a small model that lectern trained from nothing, as the papers go on from
# pretrained parts; with LECTERN_FROM_NOTHING=1 it begins with random weights.
# Run it again after an interruption or a change: parts that are up to date are skipped, a stage that
# was cut off goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")"
. scripts/documents.sh
out=out/quickstart
lectern=build/lectern
started=$SECONDS

say() { printf '\n== %s  (%d:%02d)\n' "$*" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)); }

# fresh STAMP INPUT...: whether the part that STAMP stands for is newer than all of its inputs.
fresh() {
  local stamp=$1 input
  shift
  [ -e "$stamp" ] || return 1
  for input in "$@"; do [ ! "$input" -nt "$stamp" ] || return 1; done
}

variant=nano
[ -s recipes/nano/model.safetensors ] && [ -z "${LECTERN_FROM_NOTHING:-}" ] || variant=nothing
# What belongs to the other variant goes: another tokenizer, another model.
mkdir -p "$out"
if [ "$(cat "$out/variant" 2>/dev/null || echo nothing)" != "$variant" ]; then
  rm -rf "$out"/{pages,stage1,stage2,stage3,stamps,eval,export,shards,tokenizer.json}
fi
echo "$variant" >"$out/variant"
# Dots per inch of the pages: those that the recipes' models are made for.
if [ "$variant" = nano ]; then
  recipes=quickstart-nano model=recipes/nano/model.safetensors dpi=133
else
  recipes=quickstart model=recipes/configs/models/quickstart.json dpi=100
fi

say "packages"
scripts/install-deps.sh

# One rank (process) a core, two at most: two cores train 4 % faster as ranks than as threads of one
# (docs/parallel.md). LECTERN_RANKS=1 asks for a single process.
ranks=${LECTERN_RANKS:-$(($(nproc) < 2 ? 1 : 2))}

# train RECIPE: one stage, on that many ranks; the batch of 32 is the whole job's.
train() {
  if [ "$ranks" = 1 ]; then
    $lectern train "$1" --resume
  else
    # Root may start ranks (containers); Ctrl-C leaves them time to save.
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun -np "$ranks" --oversubscribe \
      --bind-to none --mca odls_base_sigkill_timeout 60 \
      $lectern train "$1" --resume --set batch.micro_batch=$((32 / ranks))
  fi
}

say "build"
# Kernels for a GPU that is not there would only cost time.
cuda=OFF
[ ! -e /dev/nvidia0 ] || cuda=ON
cmake -S . -B build -G Ninja -DLECTERN_TESTS=OFF -DLECTERN_CUDA=$cuda >build-configure.log 2>&1 || { cat build-configure.log >&2; exit 1; }
rm -f build-configure.log
ninja -C build lectern
$lectern info
mkdir -p "$out/stamps"

say "documents"
get_documents quickstart "$out/pdf"

say "pages"
$lectern data pages --pdf "${pdfs[@]}" --out "$out/pages" --dpi $dpi

say "tokenizer"
if [ "$variant" = nano ]; then
  cmp -s recipes/nano/tokenizer.json "$out/tokenizer.json" || cp recipes/nano/tokenizer.json "$out/tokenizer.json"
elif ! fresh "$out/tokenizer.json" "$out/pages/pages.json"; then
  training_texts "$out/pages"
  $lectern tokenizer train --text "${texts[@]}" --vocab 512 --out "$out/tokenizer.json"
fi

say "shards"
$lectern data shards --pages "$out/pages" --tokenizer "$out/tokenizer.json" --out "$out/shards" \
  --validation-documents "${held_out[@]}"

# Words of the held-out documents, the same 500 after every stage.
read_words() {
  $lectern eval --checkpoint "$1" --shards "$out/shards/validation" --level word --samples 500 \
    --ascii-only --max-characters 12 --max-tokens 16 --out "$2"
}

if [ "$variant" = nano ] && ! fresh "$out/stamps/start" "$model" "$out/shards/manifest.json"; then
  say "words as nano reads them"
  rm -rf "$out/eval/start"
  read_words recipes/nano "$out/eval/start"
  touch "$out/stamps/start"
fi

# The files that recipe $1 is made of: it and what it stands on.
recipe_files() {
  local base
  echo "recipes/configs/$1.toml"
  base=$(sed -n 's/^base = "\(.*\)"/\1/p' "recipes/configs/$1.toml")
  [ -z "$base" ] || { [[ $base = */* ]] || base=$(dirname "$1")/$base; recipe_files "$base"; }
}

input="$out/shards/manifest.json"
for stage in 1 2 3; do
  recipe=$recipes/stage$stage
  mapfile -t made_of < <(recipe_files "$recipe")
  run=$out/stage$stage
  stamp=$out/stamps/stage$stage
  say "stage $stage of 3, on $ranks rank(s) of $(nproc) cores"
  if fresh "$stamp" "${made_of[@]}" "$model" "$input"; then
    echo "up to date"
  else
    # A run of the same recipe and inputs that was cut off goes on; anything else starts anew.
    begun=$out/stamps/stage$stage.begun
    if ! fresh "$begun" "${made_of[@]}" "$model" "$input"; then rm -rf "$run"; fi
    touch "$begun"
    train "$recipe"
    rm -rf "$out/eval/stage$stage"
    read_words "$run" "$out/eval/stage$stage"
    touch "$stamp"
  fi
  input=$stamp
done

say "whole pages, as they come out"
if ! fresh "$out/stamps/pages" "$out/stamps/stage3"; then
  rm -rf "$out/eval/pages"
  # The words' model sees a page as a smudge and would go on for ever.
  limit=()
  [ "$variant" = nano ] || limit=(--max-tokens 64)
  $lectern eval --checkpoint "$out/stage3" --shards "$out/shards/validation" --level page --samples 3 \
    "${limit[@]}" --out "$out/eval/pages"
  touch "$out/stamps/pages"
fi

say "export"
for format in hf original; do
  if ! fresh "$out/stamps/export-$format" "$out/stamps/stage3"; then
    rm -rf "$out/export/$format"
    mkdir -p "$out/export"
    $lectern export --checkpoint "$out/stage3" --format "$format" --out "$out/export/$format"
    touch "$out/stamps/export-$format"
  fi
done

say "report"
$lectern report --quickstart "$out" --out "$out/report.html"
say "done: $out/report.html, $out/metrics.json; try: $lectern ocr --checkpoint $out/stage3 $out/eval/stage3/images/00000.png"
