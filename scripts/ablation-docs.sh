#!/usr/bin/env bash
# Puts what `lectern ablate` found into a page of docs/: report.html and results.json beside it, and its
# tables and findings between the two markers of README.md, with the commit and the machine.
#
# usage: scripts/ablation-docs.sh OUT DOCS    (out/ablate-queries docs/ablation-queries)
set -euo pipefail
[ $# -eq 2 ] || { sed -n '5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
out=$1 docs=$2 readme=$2/README.md
lectern=${LECTERN_BINARY:-$(dirname "$0")/../build/lectern}    # the program that ran it
[ -x "$lectern" ] || { echo "ablation-docs: $lectern is not there: build it first" >&2; exit 1; }
for file in table.md report.html results.json; do
  [ -s "$out/$file" ] || { echo "ablation-docs: $out/$file is not there: run lectern ablate first" >&2; exit 1; }
done
for marker in '<!-- figures -->' '<!-- end of figures -->'; do
  grep -qF -- "$marker" "$readme" || { echo "ablation-docs: $readme must have a line '$marker'" >&2; exit 1; }
done
figures=$(mktemp)
trap 'rm -f "$figures"' EXIT
{
  echo
  echo "$(date -u +%F), lectern at commit $("$lectern" info | sed -n 's/^git_revision *//p'), $(nproc) cores of" \
    "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)."
  tail -n +2 "$out/table.md"
} >"$figures"
awk -v figures="$figures" '
  /<!-- figures -->/ { print; while ((getline line < figures) > 0) print line; skip = 1; next }
  /<!-- end of figures -->/ { skip = 0 }
  !skip { print }' "$readme" >"$readme.new"
mv "$readme.new" "$readme"
cp "$out/report.html" "$out/results.json" "$docs/"
