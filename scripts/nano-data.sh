#!/usr/bin/env bash
# Makes the data of nano/pretrain in out/nano: pages, tokenizer and shards of documents that
# Debian packages ship (about 45 MB of packages). The last two documents are held out; pages of
# installation-guide-* are used nowhere. Parts that are up to date are skipped.
#
# usage: scripts/nano-data.sh [OUT [DPI]]     (out/nano, 133; ablations/words: out/words 100)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/documents.sh
out=${1:-out/nano} dpi=${2:-133}
lectern=build/lectern
scripts/install-deps.sh
get_documents nano "$out/pdf"

$lectern data pages --pdf "${pdfs[@]}" --out "$out/pages" --dpi "$dpi"
if [ ! -s "$out/tokenizer.json" ]; then
  training_texts "$out/pages"
  $lectern tokenizer train --text "${texts[@]}" --vocab 512 --out "$out/tokenizer.json"
fi
$lectern data shards --pages "$out/pages" --tokenizer "$out/tokenizer.json" --out "$out/shards" \
  --validation-documents "${held_out[@]}"
