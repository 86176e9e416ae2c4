#!/usr/bin/env bash
# Plants a bug in a kernel, one at a time, and expects the emulated tests to fail: an index off by
# one, a missing barrier, a swapped stride, a dropped tail, and some that were made in earnest.
#
# usage: scripts/planted-kernel-bugs.sh [BUILD_FOLDER]      (needs the built tests; about 3 minutes)
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# file to change | kernel source that is compiled with it | test program | what | sed expression
bugs() {
  cat <<'TABLE'
cuda/ops/swiglu.cu|cuda/ops/swiglu.cu|elementwise|index one pack too far|s/load<N>(begin + width)/load<N>(begin + width + N)/
cuda/ops/elementwise.cu|cuda/ops/elementwise.cu|elementwise|tail dropped|s/steps = packs + count % N/steps = packs/
cuda/ops/reduce.cu|cuda/ops/reduce.cu|elementwise|last part of rows runs past the end|s/rows < (part + 1) \* rows_a_part ? rows : (part + 1) \* rows_a_part/(part + 1) * rows_a_part/
cuda/collective.h|cuda/ops/rms_norm.cu|norm|barrier missing after the scratch is written|/if (lane == 0) scratch\[warp\] = value;/{n;s/__syncthreads();//}
cuda/ops/rms_norm.cu|cuda/ops/rms_norm.cu|norm|rows skipped|s/row += gridDim.x/row += gridDim.x + 1/
cuda/ops/layer_norm.cu|cuda/ops/layer_norm.cu|norm|stride of the partial sums|s/(blockIdx.x \* 2 + 1) \* a.columns/(blockIdx.x + 1) * a.columns/
cuda/ops/window.cu|cuda/ops/window.cu|rows|strides of the grid swapped|s/number % g.windows_w \* g.window + dx/number % g.windows_h * g.window + dx/
cuda/ops/rope.cu|cuda/ops/rope.cu|rows|barrier missing before the angles are read|s/^  __syncthreads();$//
cuda/ops/linear_cross_entropy.cu|cuda/ops/linear_cross_entropy.cu|training|logit read after others wrote over it|s/static_cast<double>(lse - logit)/static_cast<double>(lse - a.logits[begin + label])/
cuda/ops/adamw.cu|cuda/ops/adamw.cu|training|tail dropped|s/i = packs \* N + threadIdx.x; i < chunk.count/i = packs * N + threadIdx.x; i < packs * N/
cuda/ops/router.cu|cuda/ops/router.cu|training|an expert may be chosen twice|s/if (mine == expert) taken |=/if (mine == expert) taken \&=/
cuda/ops/attention_forward.cu|cuda/ops/attention_forward.cu|attention|barrier missing before a stage is filled again|s/__syncthreads();  \/\/ the stage is filled again.*//
cuda/ops/attention_forward.cu|cuda/ops/attention_forward.cu|attention|warp barrier missing before the scores are overwritten|s/__syncwarp();  \/\/ the strip of the tile before.*//
cuda/ops/attention_forward.cu|cuda/ops/attention_forward.cu|attention|copies never waited for|s/wait_copies<1>();/wait_copies<2>();/
cuda/attention_problem.h|cuda/ops/attention_forward.cu|attention|causal mask one short|s/return row + 1 + (past/return row + (past/
cuda/attention_relative.h|cuda/ops/attention_relative.cu|attention|relative position off by one|s/place(token) + grid - 1 - table_row/place(token) + grid - table_row/
cuda/ops/attention_backward.cu|cuda/ops/attention_backward.cu|attention|rows and columns of the strips swapped|s/multiply<Lies::turned, Lies::plain, kRows>(grad_k, grad_scores, 0, strip/multiply<Lies::turned, Lies::plain, kRows>(grad_k, grad_scores, strip, 0/
cuda/tiles.h|cuda/ops/expert_products.cu|experts|halves of a tile exchanged|s/(row_b + n \* 8 + high + row)/(row_b + n * 8 + odd + row)/
cuda/ops/expert_products.cu|cuda/ops/expert_products.cu|experts|stride of a matrix swapped|s/matrix + (k + row) \* p.n + column/matrix + (k + row) * p.depth + column/
cuda/ops/experts.cu|cuda/ops/experts.cu|experts|barrier missing before the ranks are counted|/expert_of\[me\] = expert;/{n;s/__syncthreads();//}
TABLE
}

flags=(-std=c++20 -O1 -fopenmp -march=native -DFMT_SHARED -Wno-unknown-pragmas -ffp-contract=fast)
missed=0 caught=0
while IFS='|' read -r file source test what expression; do
  mkdir -p "$work/tree/$(dirname "$file")" "$work/tree/$(dirname "$source")"
  cp "$source" "$work/tree/$source"
  sed "$expression" "$file" >"$work/tree/$file"
  if cmp -s "$file" "$work/tree/$file"; then
    echo "planted-kernel-bugs: $file: the line to change is gone ($what)" >&2
    exit 2
  fi
  g++ "${flags[@]}" -I "$work/tree" -I tests/cuda_emulation -I . -x c++ -c "$work/tree/$source" \
    -o "$work/planted.o"
  # The test's own link command with the planted object in front of the library that has the sound
  # one; the sound object cannot be pulled in then.
  link=$(ninja -C "$build" -t commands "cuda.${test}_test" | tail -n 1)
  link=${link/ -o tests\// $work/planted.o -Wl,-z,muldefs -o $work/}
  (cd "$build" && eval "$link") >/dev/null
  if (cd "$build" && LECTERN_SOURCE=$PWD/.. timeout 120 "$work/cuda.${test}_test") >"$work/log" 2>&1; then
    echo "MISSED  $source: $what"
    missed=$((missed + 1))
  else
    why=$(grep -m1 -oE '(block \([0-9, ]+\) thread .*|worst at .*|bf16: relative.*|differs from)' "$work/log" | cut -c1-110 || true)
    echo "caught  $source: $what${why:+  [$why]}"
    caught=$((caught + 1))
  fi
  rm -rf "$work/tree"
done < <(bugs)
echo "planted-kernel-bugs: $caught caught, $missed missed"
[[ $missed -eq 0 ]]
