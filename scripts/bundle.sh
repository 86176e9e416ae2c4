#!/usr/bin/env bash
# A folder that runs on another x86-64 machine with an NVIDIA driver: the program, the GPU tests, the
# benchmark of single kernels, bench/gpu.sh, the fixtures, and the libraries they need. cuBLASLt and
# cuDNN (over 900 MB) are not in it: `run` finds them in a CUDA 13 toolkit or in Python's nvidia wheels.
# glibc 2.36 or newer is expected there.
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
mkdir -p "$out/bin" "$out/lib" "$out/tests/fixtures" "$out/bench"
strip -o "$out/bin/lectern" "$build/lectern"
strip -o "$out/bin/gpu.tests" "$build/tests/gpu.tests"
strip -o "$out/bin/gpu.kernels" "$build/tests/gpu.kernels"
cp -r tests/fixtures/ocr2_A "$out/tests/fixtures/"
cp bench/gpu.sh bench/bench_small.json bench/torch_step.py "$out/bench/"

# Every library but glibc's own (they must be the machine's, like the driver) and NVIDIA's.
ldd "$out"/bin/* | awk '/=> \// { print $3 }' | sort -u |
  grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*|libcublas[^/]*|libcudnn[^/]*|libcuda)\.so' |
  while read -r library; do strip --strip-unneeded -o "$out/lib/$(basename "$library")" "$library"; done

cat >"$out/run" <<'RUN'
#!/usr/bin/env bash
# usage: ./run PROGRAM ARGUMENTS...     a program of bin/, as ./run lectern info
here=$(cd "$(dirname "$0")" && pwd)
paths=$here/lib
for folder in /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib \
  $(python3 -c 'import nvidia, glob; [print(f) for p in nvidia.__path__ for f in glob.glob(p + "/*/lib")]' 2>/dev/null) \
  ${LECTERN_CUDA_LIBRARIES:-}; do
  [[ -d $folder ]] && paths=$paths:$folder
done
export LD_LIBRARY_PATH=$paths${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} LECTERN_SOURCE=$here
program=$here/bin/$1
shift
if missing=$(ldd "$program" | grep 'not found'); then
  echo "run: libraries that are not on this machine (a CUDA 13 toolkit with cuDNN 9 has them; name their folder in LECTERN_CUDA_LIBRARIES):" >&2
  echo "$missing" >&2
  exit 1
fi
exec "$program" "$@"
RUN
chmod +x "$out/run"

bytes=$(du -sb "$out" | cut -f1)
echo "bundle: $out, $((bytes >> 20)) MiB"
if ((bytes > most_bytes)); then
  echo "bundle: must be at most $((most_bytes >> 20)) MiB, got $((bytes >> 20)) MiB" >&2
  exit 1
fi
