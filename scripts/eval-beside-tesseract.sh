#!/usr/bin/env bash
# What tesseract reads from the pictures that `lectern eval --out` wrote, scored beside lectern.
#
# usage: scripts/eval-beside-tesseract.sh [-l LANGUAGE] [-s SCALE] FOLDER...
#   FOLDER   made by `lectern eval --level word|line|region|page --out FOLDER`
#   -s       tesseract wants about 300 dots per inch, pages here have 100: pictures are enlarged so
#            many times with `lectern data resize` (bicubic); 3
# Page segmentation modes: word 8, line 7, region 6, page 3. Of words, lines and regions the white
# border of the view is cut but for 4 pixels first: tesseract takes its picture for the word. Both sides are scored by
# `lectern score --normalize` (NFKC, runs of white space as one space: tesseract ends its texts with
# line feeds). Texts stay in FOLDER/tesseract, and are used again when the script runs again.
# Prints one table: level, document, pieces, and of each program character error rate and
# normalised edit distance.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
lectern=${LECTERN_BINARY:-$root/build/lectern}
language=eng scale=3
while getopts l:s: option; do
  case $option in
    l) language=$OPTARG ;;
    s) scale=$OPTARG ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { sed -n '4,6p' "$0" >&2; exit 2; }
command -v tesseract >/dev/null || {
  echo "eval-beside-tesseract: needs tesseract: apt-get install tesseract-ocr" >&2
  exit 1
}
[ -x "$lectern" ] || { echo "eval-beside-tesseract: $lectern is not there: build it first" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# field NAME: a number of the JSON object on standard input.
field() { sed -n "s/^.*\"$1\":\([-+.0-9e]*\).*\$/\1/p"; }

# score PRED GT: character error rate and edit distance.
score() {
  local json
  json=$("$lectern" score --pred "$1" --gt "$2" --normalize --json --out "$work/by-page.json")
  printf '%.4f %.4f' "$(field cer <<<"$json")" "$(field edit_distance <<<"$json")"
}

# read_pictures FOLDER MODE: FOLDER/tesseract/STEM.txt of each picture.
read_pictures() {
  local folder=$1 mode=$2 large=$work/large stem
  rm -rf "$large" "$work/list" "$work/texts"
  local trim=(--trim 4)
  [ "$mode" != 3 ] || trim=()
  "$lectern" data resize --pictures "$folder/images" "${trim[@]}" --scale "$scale" --out "$large" >/dev/null
  printf '%s\n' "$large"/*.png >"$work/list"
  # One process for all pictures; it parts their texts with form feeds.
  OMP_THREAD_LIMIT=1 tesseract "$work/list" "$work/texts" -l "$language" --psm "$mode" \
    --dpi $((100 * scale)) -c page_separator=$'\f' 2>"$work/log" ||
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

# row LEVEL NAME STEMS: scores of these pieces of FOLDER.
row() {
  local level=$1 name=$2 stems=$3 folder=$4 stem
  rm -rf "$work/set"
  mkdir -p "$work/set/gt" "$work/set/pred" "$work/set/tesseract"
  while read -r stem; do
    for kind in gt pred tesseract; do
      [ ! -e "$folder/$kind/$stem.txt" ] || cp "$folder/$kind/$stem.txt" "$work/set/$kind/"
    done
  done <<<"$stems"
  # shellcheck disable=SC2046
  printf '%-8s %-32s %6d   %8s %8s   %8s %8s\n' "$level" "$name" "$(wc -l <<<"$stems")" \
    $(score "$work/set/pred" "$work/set/gt") $(score "$work/set/tesseract" "$work/set/gt")
}

echo "$(tesseract --version 2>&1 | head -n 1), $language; pictures enlarged $scale times for it, white borders cut"
printf '%-8s %-32s %6s   %17s   %17s\n' '' '' '' lectern tesseract
printf '%-8s %-32s %6s   %8s %8s   %8s %8s\n' level document pieces CER distance CER distance
for folder in "$@"; do
  table=$folder/samples.tsv
  [ -f "$table" ] || { echo "eval-beside-tesseract: $table is not there: write it with lectern eval --out" >&2; exit 1; }
  level=$(sed -n '2s/\t.*//p' "$table")
  case $level in
    word) mode=8 ;;
    line) mode=7 ;;
    region) mode=6 ;;
    page) mode=3 ;;
    *) echo "eval-beside-tesseract: $table: level must be word, line, region or page, got '$level'" >&2; exit 1 ;;
  esac
  [ -d "$folder/tesseract" ] || read_pictures "$folder" "$mode"
  tail -n +2 "$table" | cut -f3 | sort -u | while IFS= read -r document; do
    row "$level" "$document" "$(awk -F'\t' -v d="$document" 'NR > 1 && $3 == d { print $2 }' "$table")" "$folder"
  done
  row "$level" all "$(tail -n +2 "$table" | cut -f2)" "$folder"
done
