#!/usr/bin/env bash
# Real text for `lectern ablate`: manuals from three Debian documentation packages, as plain text files
# in the folder given. Downloads about 12 MB of packages, once; needs apt (no root) and network.
set -euo pipefail
out=${1:?usage: ablation-text.sh FOLDER}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for package in debian-policy git-doc perl-doc; do
  [ -s "$out/$package.txt" ] && continue
  (cd "$work" && { apt-get download "$package" >/dev/null 2>&1 ||
     { apt-get update >/dev/null && apt-get download "$package" >/dev/null; }; })
  mkdir -p "$work/$package"
  dpkg-deb --fsys-tarfile "$work/${package}"_*.deb | tar -x -C "$work/$package"
  case $package in
    debian-policy) files=$(find "$work/$package" -name 'policy.txt.gz' -o -name 'upgrading-checklist.txt.gz') ;;
    git-doc) files=$(find "$work/$package" -name 'git*.txt' -o -name 'git*.txt.gz' -o -name 'user-manual.txt*') ;;
    perl-doc) files=$(find "$work/$package" -name 'perl*.pod') ;;
  esac
  # In order of name, so that the text is the same everywhere.
  printf '%s\n' "$files" | LC_ALL=C sort | while IFS= read -r file; do
    case $file in *.gz) zcat "$file" ;; *) cat "$file" ;; esac
  done >"$work/$package.txt"
  [ -s "$work/$package.txt" ] || { echo "ablation-text.sh: $package has no text" >&2; exit 1; }
  mv "$work/$package.txt" "$out/$package.txt"
done
