#!/usr/bin/env bash
# Held-out words, lines, regions and whole pages, read by a model and by tesseract from the same
# pictures, in one table.
#
# usage: scripts/eval-beside-tesseract.sh [OPTION...] FOLDER
#   FOLDER             results land here: report.html, table.md, results.json, and a folder a level
#   --checkpoint MODEL read with this model first (a run, a checkpoint, an export); without it the
#                      level folders must be there, made by `lectern eval --level L --out FOLDER/L`
#   --shards SHARDS    held-out documents, made by `lectern data shards`; with --checkpoint
#   --no-tesseract     stop when the model has read
#   --words N --lines N --regions N --pages N    how many of each; 0: none (500, 300, 200, 10)
#   --cut-width N      pixels of a page that lines and regions are cut to: the model's piece_width (112)
#   -l LANGUAGE        tesseract's (eng)
#   --region-lines N   most lines of a region (3)
#   -s SCALE           tesseract wants about 300 dots per inch, nano's pages have 133: pictures are
#                      enlarged so many times with `lectern data resize` (bicubic); 2.25
#
# Whole pages are read as the model's config.json says: by crops, where its view is too small for a
# page. Page segmentation modes of tesseract: word 8, line 7, region 6, page 3. Of words, lines and
# regions the white border of the view is cut but for 4 pixels first: tesseract takes its picture
# for the word. Both sides are scored after NFKC and with runs of white space as one space. Levels
# and texts that are there are used again: remove FOLDER to start over.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
lectern=${LECTERN_BINARY:-$root/build/lectern}
language=eng scale=2.25 region_lines=3 checkpoint='' shards='' out='' cut_width=112 beside=1
declare -A count=([word]=500 [line]=300 [region]=200 [page]=10)
usage() { sed -n '5,17s/^# \{0,1\}//p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    -l) language=${2:?}; shift ;;
    -s) scale=${2:?}; shift ;;
    --checkpoint) checkpoint=${2:?}; shift ;;
    --shards) shards=${2:?}; shift ;;
    --no-tesseract) beside=0 ;;
    --cut-width) cut_width=${2:?}; shift ;;
    --region-lines) region_lines=${2:?}; shift ;;
    --words|--lines|--regions|--pages) level=${1#--}; count[${level%s}]=${2:?}; shift ;;
    -*) usage ;;
    *) [ -z "$out" ] || usage; out=$1 ;;
  esac
  shift
done
[ -n "$out" ] || usage
[ -z "$checkpoint" ] || [ -n "$shards" ] || { echo "eval-beside-tesseract: --checkpoint needs --shards" >&2; exit 2; }
[ "$beside" = 0 ] || command -v tesseract >/dev/null || {
  echo "eval-beside-tesseract: needs tesseract: apt-get install tesseract-ocr" >&2
  exit 1
}
[ -x "$lectern" ] || { echo "eval-beside-tesseract: $lectern is not there: build it first" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

# read_with_model LEVEL: OUT/LEVEL. Whole or not there.
read_with_model() {
  local level=$1 options=()
  case $level in
    word) options=(--max-characters 14 --ascii-only --max-tokens 24) ;;
    line) options=(--cut-width "$cut_width" --ascii-only --max-tokens 64) ;;
    region) options=(--cut-width "$cut_width" --region-lines "$region_lines" --ascii-only --max-tokens 128) ;;
  esac
  rm -rf "${out:?}/$level" "${out:?}/.$level"
  "$lectern" eval --checkpoint "$checkpoint" --shards "$shards" --level "$level" \
    --samples "${count[$level]}" "${options[@]}" --out "$out/.$level" >/dev/null
  mv "$out/.$level" "$out/$level"
}

# read_with_tesseract LEVEL MODE: OUT/LEVEL/tesseract/STEM.txt of each picture.
read_with_tesseract() {
  local folder=$out/$1 mode=$2 large=$work/large stem trim=(--trim 4)
  rm -rf "$large" "$work/list" "$work/texts"
  [ "$mode" != 3 ] || trim=()
  "$lectern" data resize --pictures "$folder/images" "${trim[@]}" --scale "$scale" --out "$large" >/dev/null
  printf '%s\n' "$large"/*.png >"$work/list"
  # One process for all pictures; it parts their texts with form feeds.
  OMP_THREAD_LIMIT=1 tesseract "$work/list" "$work/texts" -l "$language" --psm "$mode" \
    --dpi 300 -c page_separator=$'\f' 2>"$work/log" ||
    { tail -n 5 "$work/log" >&2; return 1; }
  rm -rf "$folder/tesseract.partial"
  mkdir -p "$folder/tesseract.partial"
  for stem in "$large"/*.png; do basename "$stem" .png; done |
    awk -v texts="$work/texts.txt" -v out="$folder/tesseract.partial" '
      BEGIN { RS = "\f" }
      NR == 1 { split($0, stems, "\n"); next }
      { at++; if (at in stems && stems[at] != "") printf "%s", $0 > (out "/" stems[at] ".txt") }
    ' - "$work/texts.txt"
  mv "$folder/tesseract.partial" "$folder/tesseract"
}

[ -z "$checkpoint" ] || printf '%s\n' "$checkpoint" >"$out/model.txt"
[ "$beside" = 0 ] || printf '%s, %s, pictures enlarged %s times\n' "$(tesseract --version 2>&1 | head -n 1)" "$language" "$scale" \
  >"$out/tesseract.txt"
for level in word:8 line:7 region:6 page:3; do
  mode=${level#*:} level=${level%:*}
  if [ -n "$checkpoint" ] && [ "${count[$level]}" -gt 0 ] && [ ! -f "$out/$level/samples.json" ]; then
    echo "eval-beside-tesseract: $level, ${count[$level]} pieces" >&2
    read_with_model "$level"
  fi
  [ -f "$out/$level/samples.json" ] || continue
  [ "$beside" = 0 ] || [ -d "$out/$level/tesseract" ] || read_with_tesseract "$level" "$mode"
done
[ "$beside" = 1 ] || exit 0
"$lectern" report --beside "$out" --out "$out/report.html" >/dev/null
cat "$out/table.md"
