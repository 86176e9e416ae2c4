#!/usr/bin/env bash
# Fails on an #include that breaks the order of dependency or brings a library where it does not
# belong:   core <- autograd <- nn <- distributed <- recipes;   cuda and data hang off core.
# Inside a folder the rooms have an order too, and a header whose opening comment says
# "Private to this room." is included from nowhere but its room and the tests of that.
# Refused as well: rooms that are too full, files that are too long, a model family that is named
# outside its own rooms, and rooms of tests that mirror nothing.
#
# usage: scripts/check-includes.sh [SOURCE_FOLDER]
# A new library is one line in libraries(), a new room one word in rooms(); what no line names is
# refused everywhere.
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"

# Folders of ours that a folder may include, itself among them.
arrows() {
  cat <<'TABLE'
core         core
autograd     autograd core
nn           nn autograd core
distributed  distributed nn autograd core
cuda         cuda core
data         data core
recipes      recipes distributed nn autograd core data
tests        recipes distributed nn autograd core data cuda tests
bench        recipes distributed nn autograd core data cuda tests bench
examples     nn autograd core
TABLE
}

# Exceptions to the arrows: the one header, and who may include it.
doors() {
  cat <<'TABLE'
cuda/register.h  ^recipes/
TABLE
}

# The rooms of a folder, ground up: a room sees itself and the rooms of the lines above its own. "."
# are the files that lie in the folder itself, but for those that a line names (without suffix),
# which are one room; a line may also name a file of a room that sees more than the room does.
rooms() {
  cat <<'TABLE'
core         .
core         io cpu
core         ops
autograd     .
autograd     ops
nn           .
nn           blocks optim
nn           unit_work
nn           vision language
nn           model model_config weights families
nn           ocr2 ocr1 generation adapter
distributed  .
distributed  nccl
cuda         .
cuda         ops
cuda         vendor
cuda         memory
cuda         register
cuda         register_ops no_cuda
data         .
data         text images
data         tokenizer pages
data         layout shards synthetic
data         samples pairs
recipes      config machine read
recipes      recipe checkpoint evaluate
recipes      log export
recipes      train report
recipes      parity plan bench ablate
recipes      commands
recipes      main
TABLE
}

# A model family: the regular expression that names it, and the files that may.
families() {
  cat <<'TABLE'
[Oo]cr2  ^nn/(ocr2/|families)|^recipes/(parity|export)/ocr2|^tests/(nn/ocr2/|recipes/(parity|export)/ocr2|include_check_test\.cpp$|recipes/commands/documented_test\.cpp$)
TABLE
}

# Sources that a room may hold, lines that a file may have, and the rooms that hold one operation a
# file.
most_sources=30
most_lines=500
full_rooms="core/ops cuda/ops"

# Headers that are not ours, as a regular expression, and the files that may include them, as
# another. Tests and benchmarks may include any that is listed.
libraries() {
  cat <<'TABLE'
^[a-z_]+$                                 .
^(sys/.*|unistd|fcntl|poll|sched|signal|dlfcn|stdio|malloc|ucontext)\.h$  .
^(immintrin|omp)\.h$                      ^(core|nn)/
^fmt/                                     .
^nlohmann/                                ^(core|nn|distributed|data|recipes)/
^oneapi/dnnl/                             ^(core/|recipes/machine/versions\.cpp$)
^(cuda|cublas|cub/|cuda/|nvtx3/|mma\.h)  ^cuda/
^(cuda_runtime|nccl)\.h$                  ^distributed/nccl/
^mpi\.h$                                  ^distributed/mpi_communicator\.cpp$
^(hdf5|spng|pcre2)\.h$                   ^(data/|recipes/machine/versions\.cpp$)
^(jpeglib|jerror)\.h$                    ^data/
^openssl/.*\.h$                          ^core/io/
^zlib\.h$                                ^(core/io|data|recipes)/
^utf8proc\.h$                            ^(data|recipes)/
^(cairo|pango)/?                          ^(data|recipes)/
^(CLI/|toml\+\+/|spdlog/|google/protobuf/)  ^recipes/
^(gtest|gmock)/                           ^tests/
^benchmark/                               ^bench/
^kainjow/mustache\.hpp$                  ^recipes/report/template\.cpp$
TABLE
}

folders=()
for folder in $(arrows | cut -d' ' -f1); do [[ -d $folder ]] && folders+=("$folder"); done
if [[ ${#folders[@]} -eq 0 ]]; then
  echo "check-includes: no source folder in $PWD" >&2
  exit 2
fi

sources() {
  find "${folders[@]}" -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) |
    sort
}

# The headers that say "private to" in their opening comment: file:room, "" where it is another.
private_headers() {
  sources | { grep -E '\.(h|cuh)$' || true; } | xargs -r awk '
    function tell() {
      if (comment !~ /[Pp]rivate to/) return
      room = ""
      if (comment ~ /[Pp]rivate to this room/) {
        room = file
        sub(/\/[^\/]*$/, "", room)
      }
      print file ":" room
    }
    FNR == 1 { if (file) tell(); file = FILENAME; comment = ""; opening = 1 }
    opening && !/^\/\// { opening = 0 }
    opening { sub(/^\/\/ */, ""); comment = comment " " $0 }
    END { if (file) tell() }'
}

refused=0
refuse() {
  printf '%s\n' "$1" >&2
  refused=$((refused + 1))
}

# One line an #include: file:line:text
sources | xargs grep -HnE '^[[:space:]]*#[[:space:]]*include' |
  awk -F: '
    function refuse(reason) {
      printf "%s:%s: %s: %s\n", file, line, header, reason
      refused++
    }
    # The line of rooms() that a file of a folder stands in; 0 where none does.
    function tier_of(path, in_folder,   parts, n, name) {
      n = split(path, parts, "/")
      name = path
      sub(/^[^\/]*\//, "", name)
      sub(/\.[a-z]+$/, "", name)
      room = n == 2 ? name : parts[2]
      if ((in_folder " " name) in tier) {
        room = "line " tier[in_folder " " name]
        return tier[in_folder " " name]
      }
      if ((in_folder " " room) in tier) return tier[in_folder " " room]
      room = "."
      return n == 2 && (in_folder " .") in tier ? tier[in_folder " ."] : 0
    }
    function check_rooms(   from, to, from_room) {
      from = tier_of(file, folder); from_room = room
      to = tier_of(header, folder)
      if (from == 0 || to == 0)
        return refuse("its room, or that of the file, is not in rooms() of scripts/check-includes.sh")
      if (to < from || room == from_room) return
      refuse("a room may include only rooms below it")
    }
    function check_private(   own) {
      if (!(header in private)) return
      own = file
      sub(/^tests\//, "", own)
      sub(/\/[^\/]*$/, "", own)
      if (own != private[header])
        refuse("this header is private to " private[header] "/")
    }
    function check_ours(   i, target) {
      check_private()
      for (i = 1; i <= doors; i++)
        if (header == door[i] && file ~ door_for[i]) return
      target = header
      sub(/\/.*/, "", target)
      if (!(target in allowed)) return refuse("name it from the source folder, as \"core/tensor.h\"")
      if (index(" " allowed[folder] " ", " " target " ") == 0)
        return refuse(folder " may include only: " allowed[folder])
      if (target == folder && folder in has_rooms) check_rooms()
    }
    function check_library(   i, known) {
      for (i = 1; i <= libraries; i++) {
        if (header !~ library[i]) continue
        known = 1
        if (library_for[i] == "." || file ~ library_for[i] || folder ~ /^(tests|bench)$/) return
      }
      refuse(known ? "this library does not belong in this file" : \
                     "this library is not in scripts/check-includes.sh")
    }
    FNR == 1 { table++ }
    table == 1 { split($0, row, /  +/); allowed[row[1]] = row[2]; next }
    table == 2 { split($0, row, /  +/); door[++doors] = row[1]; door_for[doors] = row[2]; next }
    table == 3 {
      split($0, row, /  +/)
      library[++libraries] = row[1]; library_for[libraries] = row[2]
      next
    }
    table == 4 {
      n = split($0, row, / +/)
      has_rooms[row[1]] = 1
      for (i = 2; i <= n; i++) tier[row[1] " " row[i]] = FNR
      next
    }
    table == 5 && FILENAME != "-" { if ($2 != "") private[$1] = $2; next }
    {
      file = $1; line = $2; folder = file; header = $0
      sub(/\/.*/, "", folder)
      ours = header ~ /include[ \t]*"/
      if (!match(header, /["<][^">]+[">]/)) { refuse("includes must name a file"); next }
      header = substr(header, RSTART + 1, RLENGTH - 2)
      if (ours) check_ours(); else check_library()
    }
    END { exit refused > 0 }' \
    <(arrows) <(doors) <(libraries) <(rooms) <(private_headers; echo :) - >&2 ||
  refused=$((refused + 1))

# A header is private to the room that it lies in, or to none.
while IFS=: read -r header room; do
  [[ -n $room ]] || refuse "$header: must say \"Private to this room.\", or nothing of the kind"
done < <(private_headers)

# Rooms that are too full, files that are too long.
while read -r count room; do
  [[ $count -le $most_sources || " $full_rooms " == *" $room "* ]] ||
    refuse "$room: holds $count sources, $most_sources are the most"
done < <(sources | { grep -E '\.(cpp|cu)$' || true; } | sed 's|/[^/]*$||' | sort | uniq -c)
while read -r lines file; do
  [[ $file == total || $lines -le $most_lines ]] ||
    refuse "$file: has $lines lines, $most_lines are the most"
done < <(sources | xargs wc -l)

# Families that are named outside their rooms.
while read -r name home; do
  while IFS=: read -r file count; do
    [[ $count -gt 0 && ! $file =~ $home ]] || continue
    refuse "$file: names the family $name in $count lines"
  done < <(sources | xargs grep -cHE "$name" || true)
done < <(families)

# Rooms of tests mirror rooms.
for room in tests/*/*/; do
  room=${room%/}
  folder=${room#tests/}
  folder=${folder%/*}
  [[ " ${folders[*]} " != *" $folder "* || $folder == tests || -d ${room#tests/} ]] ||
    refuse "$room: mirrors no room, ${room#tests/} does not exist"
done

if [[ $refused -gt 0 ]]; then
  echo "check-includes: refused (above)" >&2
  exit 1
fi
echo "check-includes: every include is allowed"
