#!/usr/bin/env bash
# Fails on a function of more than 60 lines, from its signature to its closing brace, that does not
# give its reason in a comment: "Over 60 lines: <reason>", above it or in it.
#   scripts/function-lengths.sh [--report] [SOURCE_FOLDER]
# --report prints the number of functions, their median length and the longest instead.
# Reads text that scripts/format.sh has formatted: a function begins at the indentation at which it
# ends. Bodies of lambdas belong to the function around them.
set -euo pipefail
report=0
[[ ${1:-} != --report ]] || { report=1; shift; }
cd "${1:-$(dirname "$0")/..}"

folders=()
for folder in core autograd nn cuda distributed data recipes tests bench examples; do
  [[ ! -d $folder ]] || folders+=("$folder")
done
[[ ${#folders[@]} -gt 0 ]] || { echo "function-lengths: no source folder in $PWD" >&2; exit 2; }

find "${folders[@]}" -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) |
  sort | xargs awk -v report="$report" '
    function indent_of(line) { match(line, /^ */); return RLENGTH }
    function forget() { signature = 0; comment = ""; text = "" }
    # The declaration that stands before a brace: is it one of a function?
    function is_function(head) {
      sub(/^ *(template <[^{]*> )?/, "", head)
      if (head ~ /^(namespace|class|struct|enum|union|extern|if|for|while|switch|do|else|try|catch|return|case|using)[^A-Za-z_]/)
        return 0
      if (head ~ /^(static |inline |constexpr |const )*[A-Za-z_:<>, ]+[ &*]?[a-z_A-Z]+(\[[^\]]*\])* = /) return 0
      return head ~ /\(/
    }
    FNR == 1 { inside = 0; forget() }
    inside {
      if (/[Oo]ver 60 lines: ./) reason = 1
      if ($0 ~ ("^" margin "}")) {
        n = FNR - start + 1
        if (report) print n, FILENAME ":" start, reason
        if (n > 60 && !reason) {
          long++
          if (!report)
            printf "%s:%d: a function of %d lines, 60 are the most: %s\n", FILENAME, start, n, name
        }
        inside = 0; forget()
      }
      next
    }
    /^ *\/\// { if (!signature) comment = comment $0; next }
    /^ *$/ || /^#/ || /^ *(public|private|protected):$/ { forget(); next }
    {
      if (!signature) { signature = FNR; margin_of = indent_of($0); text = "" }
      text = text $0 " "
      if (/\{$/ && margin_of <= 4 && is_function(text)) {
        inside = 1; start = signature; reason = comment ~ /[Oo]ver 60 lines: ./
        margin = sprintf("%" margin_of "s", "")
        if (margin_of == 0) margin = ""
        name = text; sub(/^ */, "", name); name = substr(name, 1, 60)
        next
      }
      if (/[;{}]$/ || /^ *[A-Z_]+\(.*\)$/) forget()
    }
    END { exit long > 0 && !report }' |
  if [[ $report == 1 ]]; then
    sort -n | awk '{ n[NR] = $1; at = $2; if ($1 > 60) { long++; if (!$3) mute++ } }
      END { printf "%d functions, median %d lines, longest %d (%s), %d over 60, %d of them without a reason\n",
                   NR, n[int((NR + 1) / 2)], n[NR], at, long, mute }'
  else
    cat
  fi || { echo "function-lengths: split them (above), or say \"Over 60 lines: <reason>\"" >&2; exit 1; }
[[ $report == 1 ]] || echo "function-lengths: every function has 60 lines at most, or a reason"
