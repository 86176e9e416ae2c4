#!/usr/bin/env bash
# Makes the data of recipes/configs/nano/pretrain.toml in out/nano: pages, tokenizer and shards of documents that
# Debian packages ship (about 45 MB of packages). The last two documents are held out; pages of
# installation-guide-* are used nowhere. Parts that are up to date are skipped.
#
# usage: scripts/nano-data.sh [OUT [DPI]]     (out/nano, 133; recipes/configs/ablations/words.toml: out/words 100)
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-out/nano} dpi=${2:-133}
lectern=build/lectern
mkdir -p "$out/pdf"

# package: path inside it: pages
documents="
gnuplot-doc             usr/share/doc/gnuplot/gnuplot.pdf                                      20-290
glpk-doc                usr/share/doc/glpk-doc/glpk.pdf                                         9-150
maint-guide             usr/share/doc/maint-guide/maint-guide.en.pdf                            6-58
pari-doc                usr/share/pari/doc/tutorial.pdf                                         3-58
r-cran-powerlaw         usr/lib/R/site-library/poweRlaw/doc/d_jss_paper.pdf                     1-99
r-cran-fitdistrplus     usr/lib/R/site-library/fitdistrplus/doc/paper2JSS.pdf                   1-99
r-cran-ordinal          usr/lib/R/site-library/ordinal/doc/clm_article.pdf                      1-99
r-doc-pdf               usr/share/R/doc/manual/R-intro.pdf                                      8-100
r-doc-pdf               usr/share/R/doc/manual/refman.pdf                                      40-160
libmpfr-doc             usr/share/doc/libmpfr-doc/mpfr.pdf.gz                                   8-65
db5.3-doc               usr/share/doc/db5.3-doc/programmer_reference/bdb_usenix.pdf.gz          1-9
db5.3-doc               usr/share/doc/db5.3-doc/programmer_reference/libtp_usenix.pdf.gz        1-17
db5.3-doc               usr/share/doc/db5.3-doc/programmer_reference/BDB_Prog_Reference.pdf.gz 20-160
python3-traitsui        usr/share/doc/python3-traitsui/traits_ui_slides.pdf.gz                  2-120
jags                    usr/share/doc/jags/jags_user_manual.pdf.gz                              1-99
r-cran-bridgesampling   usr/lib/R/site-library/bridgesampling/doc/bridgesampling_paper.pdf      1-99
"
held_out=(jags_user_manual bridgesampling_paper)

scripts/install-deps.sh
pdfs=()
while read -r package path pages; do
  [ -n "$package" ] || continue
  file="$out/pdf/$(basename "$path")"
  if [ ! -s "$file" ]; then
    work=$(mktemp -d)
    (cd "$work" && { apt-get download "$package" >/dev/null 2>&1 ||
       { apt-get update >/dev/null && apt-get download "$package" >/dev/null; }; })
    dpkg-deb --fsys-tarfile "$work"/*.deb | tar -x -C "$work" "./$path"
    mv "$work/$path" "$file"
    rm -rf "$work"
    echo "$file  from $package"
  fi
  pdfs+=("$file:$pages")
done <<<"$documents"

$lectern data pages --pdf "${pdfs[@]}" --out "$out/pages" --dpi "$dpi"
if [ ! -s "$out/tokenizer.json" ]; then
  texts=()
  for text in "$out"/pages/*.txt; do
    case $text in */"${held_out[0]}"-*|*/"${held_out[1]}"-*) ;; *) texts+=("$text") ;; esac
  done
  $lectern tokenizer train --text "${texts[@]}" --vocab 512 --out "$out/tokenizer.json"
fi
$lectern data shards --pages "$out/pages" --tokenizer "$out/tokenizer.json" --out "$out/shards" \
  --validation-documents "${held_out[@]}"
