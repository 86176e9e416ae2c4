#!/usr/bin/env bash
# Formats our C++ and CUDA sources in place with clang-format 14 and .clang-format.
#   scripts/format.sh [--check] [FILE...]     all sources by default
# --check changes nothing, lists the files that are not formatted and exits 1 when there are any.
set -euo pipefail
cd "$(dirname "$0")/.."

formatter=$(command -v clang-format-14) || {
  echo "format.sh: clang-format-14 is missing; apt-get install clang-format-14" >&2
  exit 1
}
check=false
[ "${1:-}" != --check ] || { check=true; shift; }

files=("$@")
if [ ${#files[@]} -eq 0 ]; then
  folders=()
  for folder in core autograd nn cuda distributed data recipes tests bench; do
    [ ! -d "$folder" ] || folders+=("$folder")
  done
  mapfile -t files < <(find "${folders[@]}" -type f \
    \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) | sort)
fi
for file in "${files[@]}"; do
  [ -r "$file" ] || { echo "format.sh: $file: no such file" >&2; exit 1; }
done

# Only files that change are written, so that nothing is built again for nothing.
mapfile -t changed < <("$formatter" --dry-run "${files[@]}" 2>&1 |
  sed -n 's/^\(.*\):[0-9]*:[0-9]*: warning: code should be clang-formatted.*/\1/p' | sort -u)
[ ${#changed[@]} -eq 0 ] || printf '%s\n' "${changed[@]}"
if ! $check; then
  [ ${#changed[@]} -eq 0 ] || "$formatter" -i "${changed[@]}"
  echo "format.sh: formatted ${#changed[@]} of ${#files[@]} files"
elif [ ${#changed[@]} -gt 0 ]; then
  echo "format.sh: ${#changed[@]} of ${#files[@]} files are not formatted; scripts/format.sh mends it" >&2
  exit 1
else
  echo "format.sh: all ${#files[@]} files are formatted"
fi
