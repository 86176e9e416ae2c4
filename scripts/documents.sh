# The documents of ./quickstart.sh and of scripts/nano-data.sh, PDFs that Debian packages ship. To be sourced:
#   get_documents quickstart|nano FOLDER   downloads what FOLDER has not yet; sets pdfs=(FILE:PAGES...)
#   training_texts PAGES                   sets texts=(...): those of a folder of pages that are not held out
# shellcheck shell=bash disable=SC2034

# package, path inside it, pages of quickstart, pages of nano (-: none). The last two documents are held
# out: nothing trains on them.
documents="
gnuplot-doc             usr/share/doc/gnuplot/gnuplot.pdf                                      20-140 20-290
glpk-doc                usr/share/doc/glpk-doc/glpk.pdf                                         9-80   9-150
maint-guide             usr/share/doc/maint-guide/maint-guide.en.pdf                            6-58   6-58
pari-doc                usr/share/pari/doc/tutorial.pdf                                         3-58   3-58
r-cran-powerlaw         usr/lib/R/site-library/poweRlaw/doc/d_jss_paper.pdf                     1-99   1-99
r-cran-fitdistrplus     usr/lib/R/site-library/fitdistrplus/doc/paper2JSS.pdf                   1-99   1-99
r-cran-ordinal          usr/lib/R/site-library/ordinal/doc/clm_article.pdf                      1-99   1-99
r-doc-pdf               usr/share/R/doc/manual/R-intro.pdf                                      -      8-100
r-doc-pdf               usr/share/R/doc/manual/refman.pdf                                       -     40-160
libmpfr-doc             usr/share/doc/libmpfr-doc/mpfr.pdf.gz                                   -      8-65
db5.3-doc               usr/share/doc/db5.3-doc/programmer_reference/bdb_usenix.pdf.gz          -      1-9
db5.3-doc               usr/share/doc/db5.3-doc/programmer_reference/libtp_usenix.pdf.gz        -      1-17
db5.3-doc               usr/share/doc/db5.3-doc/programmer_reference/BDB_Prog_Reference.pdf.gz  -     20-160
python3-traitsui        usr/share/doc/python3-traitsui/traits_ui_slides.pdf.gz                  -      2-120
jags                    usr/share/doc/jags/jags_user_manual.pdf.gz                              1-99   1-99
r-cran-bridgesampling   usr/lib/R/site-library/bridgesampling/doc/bridgesampling_paper.pdf      1-99   1-99
"
held_out=(jags_user_manual bridgesampling_paper)

# get_document PACKAGE PATH FILE: a file of a package, without installing that.
get_document() {
  local work
  work=$(mktemp -d)
  (cd "$work" && { apt-get download "$1" >/dev/null 2>&1 ||
    { apt-get update >/dev/null && apt-get download "$1" >/dev/null; }; })
  dpkg-deb --fsys-tarfile "$work"/*.deb | tar -x -C "$work" "./$2"
  mv "$work/$2" "$3"
  rm -rf "$work"
  echo "$3  from $1"
}

get_documents() {
  local which=$1 folder=$2 package path quickstart nano file
  mkdir -p "$folder"
  pdfs=()
  while read -r package path quickstart nano; do
    [ -n "$package" ] && [ "${!which}" != - ] || continue
    file="$folder/$(basename "$path")"
    [ -s "$file" ] || get_document "$package" "$path" "$file"
    pdfs+=("$file:${!which}")
  done <<<"$documents"
}

training_texts() {
  local text
  texts=()
  for text in "$1"/*.txt; do
    case $text in */"${held_out[0]}"-* | */"${held_out[1]}"-*) ;; *) texts+=("$text") ;; esac
  done
}
