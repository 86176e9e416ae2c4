#!/usr/bin/env bash
# Fails on an #include that breaks the order of dependency or brings a library where it does not
# belong:   core <- autograd <- nn <- distributed <- recipes;   cuda and data hang off core.
#
# usage: scripts/check-includes.sh [SOURCE_FOLDER]
# A new library is one line in libraries(); a header that no line names is refused everywhere.
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
TABLE
}

# Exceptions to the arrows: the one header, and who may include it.
doors() {
  cat <<'TABLE'
cuda/register.h  ^recipes/
TABLE
}

# Headers that are not ours, as a regular expression, and the files that may include them, as
# another. Tests and benchmarks may include any that is listed.
libraries() {
  cat <<'TABLE'
^[a-z_]+$                                 .
^(sys/.*|unistd|fcntl|poll|sched|signal|dlfcn|stdio|ucontext)\.h$  .
^(immintrin|omp)\.h$                      ^(core|nn)/
^fmt/                                     .
^nlohmann/                                ^(core|nn|distributed|data|recipes)/
^oneapi/dnnl/                             ^(core/|recipes/machine/versions\.cpp$)
^(cuda|cublas|cudnn|cub/|cuda/|nvtx3/|mma\.h)  ^cuda/
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

# One line an #include: file:line:text
find "${folders[@]}" -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) \
  -exec grep -HnE '^[[:space:]]*#[[:space:]]*include' {} + | sort |
  awk -F: '
    function refuse(reason) {
      printf "%s:%s: %s: %s\n", file, line, header, reason
      refused++
    }
    function check_ours(   i) {
      for (i = 1; i <= doors; i++)
        if (header == door[i] && file ~ door_for[i]) return
      target = header
      sub(/\/.*/, "", target)
      if (!(target in allowed)) return refuse("name it from the source folder, as \"core/tensor.h\"")
      if (index(" " allowed[folder] " ", " " target " ") == 0)
        refuse(folder " may include only: " allowed[folder])
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
    FILENAME == ARGV[1] { split($0, row, /  +/); allowed[row[1]] = row[2]; next }
    FILENAME == ARGV[2] { split($0, row, /  +/); door[++doors] = row[1]; door_for[doors] = row[2]; next }
    FILENAME == ARGV[3] {
      split($0, row, /  +/)
      library[++libraries] = row[1]; library_for[libraries] = row[2]
      next
    }
    {
      file = $1; line = $2; folder = file; header = $0
      sub(/\/.*/, "", folder)
      ours = header ~ /include[ \t]*"/
      if (!match(header, /["<][^">]+[">]/)) { refuse("includes must name a file"); next }
      header = substr(header, RSTART + 1, RLENGTH - 2)
      if (ours) check_ours(); else check_library()
    }
    END {
      if (refused > 0) { printf "check-includes: %d refused\n", refused; exit 1 }
    }' <(arrows) <(doors) <(libraries) - >&2
echo "check-includes: every include is allowed"
