#!/usr/bin/env bash
# The worked example of docs/fine-tuning.md: nano learns receipts in light letters on dark paper, which
# it has never seen, from 200 pictures with their texts; 20 are held out. A few minutes on two cores.
#   scripts/fine-tuning-example.sh [FOLDER]      default: out/receipts
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-out/receipts} lectern=build/lectern

# Pictures and texts: three lines of a till. A PDF of a page each is written here and drawn by poppler.
# The numbers follow from a seed, so that everyone has the same pictures.
if [ ! -e "$out/pictures/220.png" ]; then
  mkdir -p "$out/pictures"
  LC_ALL=C awk -v folder="$out/pictures" '
    function object(text) { place[++objects] = at; emit(objects " 0 obj\n" text "\nendobj\n") }
    function emit(text) { printf "%s", text; at += length(text) }
    function line(text, y) { return "BT /F 16 Tf 6 " y " Td (" text ") Tj ET\n" }
    BEGIN {
      srand(7); split("BREAD MILK TEA SALT RICE EGGS SOAP JAM HONEY FISH BEANS PLUMS LEEK SUGAR OIL", item, " ")
      emit("%PDF-1.4\n"); pages = 220
      object("<< /Type /Catalog /Pages 2 0 R >>")
      for (i = 1; i <= pages; ++i) kids = kids (2 + 2 * i) " 0 R "
      object("<< /Type /Pages /Count " pages " /MediaBox [0 0 128 128] /Kids [" kids "] >>")
      object("<< /Type /Font /Subtype /Type1 /BaseFont /Courier-Bold >>")
      for (i = 1; i <= pages; ++i) {
        count = 1 + int(9 * rand()); cents = 5 * (1 + int(199 * rand())); sum = count * cents
        first = item[1 + int(15 * rand())]
        second = sprintf("%dx %d.%02d", count, cents / 100, cents % 100)
        third = sprintf("SUM %d.%02d", sum / 100, sum % 100)
        text = sprintf("%s/%03d.txt", folder, i); printf "%s\n%s\n%s\n", first, second, third > text; close(text)
        object("<< /Type /Page /Parent 2 0 R /Contents " (objects + 2) " 0 R /Resources << /Font << /F 3 0 R >> >> >>")
        draw = "0.09 0.12 0.16 rg 0 0 128 128 re f\n0.91 0.88 0.78 rg\n" line(first, 110) line(second, 86) line(third, 62)
        object("<< /Length " length(draw) " >>\nstream\n" draw "endstream")
      }
      begin = at; emit("xref\n0 " (objects + 1) "\n0000000000 65535 f \n")
      for (i = 1; i <= objects; ++i) emit(sprintf("%010d 00000 n \n", place[i]))
      emit("trailer << /Size " (objects + 1) " /Root 1 0 R >>\nstartxref\n" begin "\n%%EOF\n")
    }' >"$out/receipts.pdf"
  pdftoppm -r 72 -png "$out/receipts.pdf" "$out/pictures/page"
  for picture in "$out"/pictures/page-*.png; do mv "$picture" "${picture/page-/}"; done
fi

# Shards, 200 to train on and 20 held out.
[ -e "$out/shards" ] || $lectern data pairs "$out/pictures" --checkpoint recipes/nano --out "$out/shards" \
  --split 0.909 --contact-sheet "$out/sheet.png"

score() { $lectern eval --checkpoint recipes/nano --shards "$out/shards/validation" --max-tokens 48 "$@"; }

echo "== before"
score --out "$out/before"
echo "== training an adapter"
$lectern train receipts --resume --set run_dir="$out/run" --set "data.shards=[\"$out/shards/train\"]" \
  --set data.validation="$out/shards/validation"
echo "== after"
score --adapter "$out/run" --out "$out/after"
