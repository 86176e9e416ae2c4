#!/usr/bin/env bash
# A folder that runs on another x86-64 machine with glibc 2.36 or newer and nothing installed but, for
# the GPU, NVIDIA's driver: the program, the GPU tests, the benchmark of single kernels, bench/gpu.sh, the
# fixtures, and the libraries they need. Programs and libraries are one archive, which `run` unpacks on
# its first call, beside itself or in a temporary folder; xz, which does it, is in the folder, too. (The
# three programs hold the same device code, 6 MB an architecture. A window that is larger than a
# program finds it again.)
# cuBLASLt (over 500 MB) is not in it: `run` finds it in a CUDA 13 toolkit or in Python's nvidia wheels.
# Without it everything on the CPU works all the same.
#
# usage: scripts/bundle.sh [OUT_FOLDER]          default out/bundle; builds in build-bundle
#        LECTERN_BUNDLE_BUILD=build scripts/bundle.sh      takes an existing build instead (its
#                                                          -march=native must suit the other machine)
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-out/bundle}
build=${LECTERN_BUNDLE_BUILD:-build-bundle}
most_bytes=$((60 << 20))

if [[ -z ${LECTERN_BUNDLE_BUILD:-} ]]; then
  cmake -S . -B "$build" -G Ninja -DLECTERN_TESTS=ON -DLECTERN_NATIVE=OFF -DLECTERN_CUDA=ON >/dev/null
  ninja -C "$build" lectern gpu.tests gpu.kernels
fi

rm -rf "$out"
mkdir -p "$out/tests/fixtures" "$out/bench"
cp -r tests/fixtures/ocr2_A "$out/tests/fixtures/"
cp bench/gpu.sh bench/bench_small.json bench/torch_step.py "$out/bench/"

programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
mkdir -p "$programs/bin" "$programs/lib" "$programs/absent"
for program in lectern tests/gpu.tests tests/gpu.kernels; do
  strip -o "$programs/bin/$(basename "$program")" "$build/$program"
done

# Every library but glibc's own (they must be the machine's, like the driver) and NVIDIA's.
ldd "$programs"/bin/* | awk '/=> \// { print $3 }' | sort -u |
  grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*|libcublas[^/]*|libcuda)\.so' |
  while read -r library; do strip --strip-unneeded -o "$programs/lib/$(basename "$library")" "$library"; done

# Stands in for an NVIDIA library that is not there: every function says so by its status.
stand_in() {
  local library=$1 name
  {
    for name in $(nm -D --undefined-only "$programs"/bin/* | sed -n "s/.* U \(.*\)@$library$/\1/p" | sort -u); do
      case $name in
        *String) echo "const char* $name(void) { return \"cuBLASLt is not on this machine\"; }" ;;
        *Version) echo "unsigned long $name(void) { return 0; }" ;;
        *) echo "int $name(void) { return 1; }" ;;
      esac
    done
  } | gcc -shared -fPIC -O1 -x c -Wl,-soname,"$library" \
    -Wl,--version-script=<(echo "$library { global: *; };") -o "$programs/absent/$library" -
}
for library in $(objdump -p "$programs"/bin/lectern | awk '/NEEDED/ && /libcublasLt/ { print $2 }'); do
  stand_in "$library"
done

tar -C "$programs" --sort=name --owner=0 --group=0 -c . |
  xz --lzma2=preset=6,dict=48MiB >"$out/programs.tar.xz"
mkdir "$out/unpack"
cp "$(command -v xz)" "$(ldd "$(command -v xz)" | awk '/liblzma/ { print $3 }')" "$out/unpack/"
cat >"$out/run" <<'RUN'
#!/usr/bin/env bash
# usage: ./run PROGRAM ARGUMENTS...     PROGRAM is lectern, gpu.tests or gpu.kernels: ./run lectern info
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
sum=$(cksum <"$here/programs.tar.xz" | tr ' ' -)
programs=$here/programs-$sum
[[ -w $here || -d $programs ]] || programs=${TMPDIR:-/tmp}/lectern-$(id -u)-$sum
if [[ ! -d $programs ]]; then  # others may be doing the same: each unpacks, one is renamed
  unpacked=$(mktemp -d "$programs.XXXXXX")
  LD_LIBRARY_PATH=$here/unpack "$here/unpack/xz" -dc "$here/programs.tar.xz" | tar -C "$unpacked" -x
  chmod 755 "$unpacked"
  mv -T "$unpacked" "$programs" 2>/dev/null || rm -rf "$unpacked"
fi
[[ -O $programs || $programs == "$here"/* ]] || { echo "run: $programs belongs to somebody else" >&2; exit 1; }
paths=$programs/lib
for folder in /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib \
  $(python3 -c 'import nvidia, glob; [print(f) for p in nvidia.__path__ for f in glob.glob(p + "/*/lib")]' 2>/dev/null || true) \
  ${LECTERN_CUDA_LIBRARIES:-}; do
  if [[ -d $folder ]]; then paths=$paths:$folder; fi
done
export LD_LIBRARY_PATH=$paths${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} LECTERN_SOURCE=$here
program=$programs/bin/${1:?usage: ./run PROGRAM ARGUMENTS...}
shift
missing=$(ldd "$program" | awk '/not found/ { print $1 }' | sort -u)
if [[ -n $missing ]]; then
  for library in $missing; do
    [[ -f $programs/absent/$library ]] && continue
    echo "run: $library is not on this machine" >&2
    exit 1
  done
  echo "run: only the CPU can be used: not on this machine:" $missing \
    "(a CUDA 13 toolkit has it, and Python's nvidia wheels; name their folder in LECTERN_CUDA_LIBRARIES)" >&2
  export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$programs/absent
fi
exec "$program" "$@"
RUN
chmod +x "$out/run"

bytes=$(du -sb "$out" | cut -f1)
echo "bundle: $out, $((bytes >> 20)) MiB; unpacked $(($(du -sb "$programs" | cut -f1) >> 20)) MiB more"
if ((bytes > most_bytes)); then
  echo "bundle: must be at most $((most_bytes >> 20)) MiB, got $((bytes >> 20)) MiB" >&2
  exit 1
fi
