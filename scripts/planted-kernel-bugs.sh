#!/usr/bin/env bash
# Plants a bug in a kernel, one at a time, and expects the emulated tests to fail: an index off by
# one, a missing barrier, a swapped stride, a dropped tail, and some that were made in earnest. Only
# the changed source is compiled, and only the tests that should notice are linked and run. The tests of
# kernels need no nvcc, and neither does this.
# Prints a table; fails when a bug survives.
#
# usage: scripts/planted-kernel-bugs.sh [BUILD_FOLDER [PATTERN]]
#        needs the built tests; PATTERN chooses the rows whose text it matches
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}
pattern=${2:-.}
# A fixed folder, so that ccache knows the planted sources again.
work=$build/planted-kernel-bugs
rm -rf "$work"
mkdir -p "$work"

# file to change | kernel source that is compiled with it | test program and its tests | what | sed
bugs() {
  cat <<'TABLE'
cuda/ops/swiglu.cu|cuda/ops/swiglu.cu|elementwise CudaSwiglu.*|index one pack too far|s/load<N>(begin + width)/load<N>(begin + width + N)/
cuda/ops/elementwise.cu|cuda/ops/elementwise.cu|elementwise CudaElementwise.*|tail dropped|s/steps = packs + count % N/steps = packs/
cuda/ops/reduce.cu|cuda/ops/reduce.cu|elementwise CudaReduce.*|last part of rows runs past the end|s/rows < (part + 1) \* rows_a_part ? rows : (part + 1) \* rows_a_part/(part + 1) * rows_a_part/
cuda/collective.h|cuda/ops/rms_norm.cu|norm CudaRmsNorm.*|barrier missing after the scratch is written|/if (lane == 0) scratch\[warp\] = value;/{n;s/__syncthreads();//}
cuda/ops/rms_norm.cu|cuda/ops/rms_norm.cu|norm CudaRmsNorm.*|rows skipped|s/row += gridDim.x/row += gridDim.x + 1/
cuda/ops/layer_norm.cu|cuda/ops/layer_norm.cu|norm CudaLayerNorm.*|stride of the partial sums|s/(blockIdx.x \* 2 + 1) \* a.columns/(blockIdx.x + 1) * a.columns/
cuda/ops/window.cu|cuda/ops/window.cu|rows CudaWindow.*|strides of the grid swapped|s/number % g.windows_w \* g.window + dx/number % g.windows_h * g.window + dx/
cuda/ops/rope.cu|cuda/ops/rope.cu|rows CudaRope.*|barrier missing before the angles are read|s/^  __syncthreads();$//
cuda/ops/rows.cu|cuda/ops/rows.cu|rows CudaRows.*|source of a row not asked for|s/if (index\[2 \* row\] != number) continue;//
cuda/ops/patchify.cu|cuda/ops/patchify.cu|rows CudaPatchify.*|rows and columns of the patches swapped|s/patch \/ columns % rows/patch \/ rows % columns/
cuda/ops/interpolate.cu|cuda/ops/interpolate.cu|rows CudaInterpolate.*|first tap one off|s/outer \* a.input + a.first\[o\]/outer * a.input + a.first[o] + 1/
cuda/ops/linear_cross_entropy.cu|cuda/ops/linear_cross_entropy.cu|training CudaLinearCrossEntropy.*|logit read after others wrote over it|s/static_cast<double>(lse - logit)/static_cast<double>(lse - a.logits[begin + label])/
cuda/ops/adamw.cu|cuda/ops/adamw.cu|training CudaAdamW.*|tail dropped|s/i = packs \* N + threadIdx.x; i < chunk.count/i = packs * N + threadIdx.x; i < packs * N/
cuda/ops/router.cu|cuda/ops/router.cu|training CudaRouter.*|an expert may be chosen twice|s/if (mine == expert) taken |=/if (mine == expert) taken \&=/
cuda/ops/attention_forward.cu|cuda/ops/attention_forward.cu|attention CudaAttention.FullMask|barrier missing before a stage is filled again|s/__syncthreads();  \/\/ the stage is filled again.*//
cuda/ops/attention_forward.cu|cuda/ops/attention_forward.cu|attention CudaAttention.FullMask|warp barrier missing before the scores are read|s/^  __syncwarp();$//
cuda/ops/attention_forward.cu|cuda/ops/attention_forward.cu|attention CudaAttention.FullMask|copies never waited for|s/wait_copies<1>();/wait_copies<2>();/
cuda/ops/attention_problem.h|cuda/ops/attention_forward.cu|attention CudaAttention.CausalMask*|causal mask one short|s/return row + 1 + (past/return row + (past/
cuda/ops/attention_relative.h|cuda/ops/attention_relative.cu|attention CudaAttention.RelativePositions*|relative position off by one|s/place(token) + grid - 1 - table_row/place(token) + grid - table_row/
cuda/ops/attention_backward.cu|cuda/ops/attention_backward.cu|attention CudaAttention.FullMask|rows and columns of the strips swapped|s/multiply<Transpose::yes, Transpose::no, kRows>(grad_k, grad_scores, 0, strip/multiply<Transpose::yes, Transpose::no, kRows>(grad_k, grad_scores, strip, 0/
cuda/ops/attention_grad_queries.cu|cuda/ops/attention_grad_queries.cu|attention CudaAttention.FullMask|barrier missing before the tiles are filled again|s/__syncthreads();  \/\/ the tiles are filled again.*//
cuda/ops/attention_grad_queries.cu|cuda/ops/attention_grad_queries.cu|attention CudaAttention.RelativePositions*|strides of the grid swapped|s/strip_row(2 \* pair)) \* grid_h + y/strip_row(2 * pair)) * grid_w + y/
cuda/tiles.h|cuda/ops/expert_products.cu|experts CudaExperts.*|halves of a tile exchanged|s/(row_b + n \* 8 + high + row)/(row_b + n * 8 + odd + row)/
cuda/ops/expert_products.cu|cuda/ops/expert_products.cu|experts CudaExperts.*|stride of a matrix swapped|s/matrix + (k + row) \* p.n + column/matrix + (k + row) * p.depth + column/
cuda/ops/experts.cu|cuda/ops/experts.cu|experts CudaExperts.*|barrier missing before the ranks are counted|/expert_of\[me\] = expert;/{n;s/__syncthreads();//}
core/ops/sinkhorn_math.h|cuda/ops/sinkhorn.cu|streams CudaSinkhorn.*|a step not undone on the way back|s/m\[entry\] \*= divisor;//
cuda/ops/sinkhorn_thread.h|cuda/ops/sinkhorn.cu|streams CudaSinkhorn.*|stride between the divisors of neighbours|s/memory\[i \* stride + thread\]/memory[i + thread]/
cuda/ops/sinkhorn.cu|cuda/ops/sinkhorn.cu|streams CudaSinkhorn.*|last matrix dropped|s/i < a.matrices; i += grid_threads()/i + 1 < a.matrices; i += grid_threads()/
cuda/collective.h|cuda/ops/stream_read.cu|streams CudaStreamRead.*|last step of a sum over lanes dropped|s/step < 5/step < 4/
cuda/ops/stream_read.cu|cuda/ops/stream_read.cu|streams CudaStreamRead.*|barrier missing before the coefficients|/a, first \* size.norms + begin, rows/,/for (int i = thread/s/__syncthreads();//
cuda/ops/stream_read.cu|cuda/ops/stream_read.cu|streams CudaStreamRead.*|barrier missing before the mix|/make_coefficients<N>(a, first, thread/,/if (size.packs)/s/__syncthreads();//
cuda/ops/stream_read.cu|cuda/ops/stream_read.cu|streams CudaStreamRead.*|tail of a row dropped|s/k < size.length; k += kWarp/k + kWarp * W <= size.length; k += kWarp/
cuda/ops/stream_read.cu|cuda/ops/stream_read.cu|streams CudaStreamRead.*|tokens and rows of the tasks swapped|s/begin = task \/ groups \* kTileTokens, row = task % groups \* kRows/begin = task % groups * kTileTokens, row = task \/ groups * kRows/
cuda/ops/stream_read_backward.cu|cuda/ops/stream_read_backward.cu|streams CudaStreamRead.*|mix read transposed|s/tile.mix\[(t \* N + m) \* N + j\]/tile.mix[(t * N + j) * N + m]/
cuda/ops/stream_read_backward.cu|cuda/ops/stream_read_backward.cu|streams CudaStreamRead.*|barrier missing before the coefficients are turned|/make_dots<N, 1>/{n;s/__syncthreads();//}
cuda/ops/stream_read_backward.cu|cuda/ops/stream_read_backward.cu|streams CudaStreamRead.*|last token of a tile dropped|s/t < count; t += kWarps/t + 1 < count; t += kWarps/
cuda/ops/stream_read_backward.cu|cuda/ops/stream_read_backward.cu|streams CudaStreamRead.*|product of another stream|s/(kPerStream ? j \* size.rows : 0) + r/(kPerStream ? j : 0) + r/
cuda/ops/stream_write.cu|cuda/ops/stream_write.cu|streams CudaStreamWrite.*|mix read transposed|s/mix\[i \* N + j\] \* x/mix[j * N + i] * x/
cuda/ops/stream_write.cu|cuda/ops/stream_write.cu|streams CudaStreamWrite.*|barrier missing before the warps are added up|s/^  __syncthreads();$//
cuda/ops/stream_write.cu|cuda/ops/stream_write.cu|streams CudaStreamWrite.*|strides of the scratch swapped|s/scratch\[w \* N + thread\]/scratch[w + thread * N]/
cuda/ops/stream_stack.cu|cuda/ops/stream_stack.cu|streams CudaStreamStack.*|strides of token and stream swapped|s/(token \* a.streams + j)/(token + j * a.tokens)/
TABLE
}

compiler=(g++)
command -v ccache >/dev/null && compiler=(ccache g++)
flags=(-std=c++20 -O1 -fopenmp -march=native -DFMT_SHARED -Wno-unknown-pragmas -ffp-contract=fast)

# plant NUMBER FILE SOURCE TEST WHAT EXPRESSION: writes a row of the table to $work/NUMBER.row, its
# first word "caught", "MISSED" or "BROKEN".
plant() {
  local here=$work/$1 file=$2 source=$3 test=${4% *} tests=${4#* } what=$5 expression=$6
  local row="$source${what:+: $what}" link why
  mkdir -p "$here/tree/$(dirname "$file")" "$here/tree/$(dirname "$source")"
  cp "$source" "$here/tree/$source"
  sed "$expression" "$file" >"$here/tree/$file"
  if cmp -s "$file" "$here/tree/$file"; then
    echo "BROKEN  $row  [the line to change is gone from $file]" >"$here.row"
    return
  fi
  if ! "${compiler[@]}" "${flags[@]}" -I "$here/tree" -I tests/cuda_emulation -I . -x c++ \
    -c "$here/tree/$source" -o "$here/planted.o" >"$here/log" 2>&1; then
    echo "BROKEN  $row  [does not compile: $(grep -m1 error: "$here/log" | cut -c1-80)]" >"$here.row"
    return
  fi
  # The test's own link command with the planted object in front of the library that has the sound
  # one; the sound object cannot be pulled in then.
  link=$(ninja -C "$build" -t commands tests.cuda | tail -n 1)
  link=${link/ -o tests\// planted-kernel-bugs/$1/planted.o -Wl,-z,muldefs -o planted-kernel-bugs/$1/}
  (cd "$build" && eval "$link") >/dev/null
  if LECTERN_SOURCE=$PWD timeout 300 "$here/tests.cuda" --gtest_filter="$tests" --gtest_fail_fast >"$here/log" 2>&1; then
    echo "MISSED  $row" >"$here.row"
  else
    why=$(grep -m1 -oE '(block \([0-9, ]+\) thread .*|worst at .*|bf16: relative.*|differs from)' "$here/log" | cut -c1-110 || true)
    echo "caught  $row${why:+  [$why]}" >"$here.row"
  fi
  rm -rf "$here"
}

mapfile -t table < <(bugs | grep -E -- "$pattern")
number=100
for line in "${table[@]}"; do
  IFS='|' read -r file source test what expression <<<"$line"
  while (($(jobs -rp | wc -l) >= $(nproc))); do wait -n; done
  plant "$number" "$file" "$source" "$test" "$what" "$expression" &
  number=$((number + 1))
done
wait
cat "$work"/*.row
caught=$(cat "$work"/*.row | grep -c '^caught' || true)
echo "planted-kernel-bugs: $caught of ${#table[@]} caught"
[[ $caught -eq ${#table[@]} ]]
