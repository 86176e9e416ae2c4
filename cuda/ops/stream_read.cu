#include "core/ops/stream_count.h"
#include "core/ops/stream_read.h"
#include "cuda/ops/register_ops.h"
#include "cuda/ops/stream_read_backward.h"
#include "cuda/ops/stream_tile.h"

namespace lectern::cuda {
namespace {

/// A warp forms the products of a tile of tokens with kRows rows of the projection: each of its
/// lanes has them all, over its own columns, and at the end the lanes are added up.
constexpr int kRows = 6, kSums = kTileTokens * kRows;
constexpr int kFewestWarps = 4, kMostWarps = 8;

struct Forward {
  StreamSizes size;
  Span<const float> x, fn, base, scale;
  Span<float> input, pre, post, mix, products, squares;  // head has neither post nor mix
};

/// Products of rows first..first+count of x, at most kTileTokens, with rows of the projection from
/// `row` on; `squares` of these rows of x too when that is 0.
template <int W>
__device__ void add_products(const Forward& a, std::int64_t first, int count, int row,
                             const Shared<float>& products, const Shared<float>& squares) {
  const StreamSizes& size = a.size;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float sums[kSums], of_squares[kWarp];
#pragma unroll
  for (int i = 0; i < kSums; ++i) sums[i] = 0.0f;
#pragma unroll
  for (int i = 0; i < kWarp; ++i) of_squares[i] = 0.0f;
  for (std::int64_t k = lane * W; k < size.length; k += kWarp * W) {
    // Rows and tokens that do not exist repeat the last one; their sums are thrown away.
    Pack<float, W> weight[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int at = row + r < size.rows ? row + r : size.rows - 1;
      weight[r] = a.fn.template load<W>(at * size.length + k);
    }
#pragma unroll
    for (int t = 0; t < kTileTokens; ++t) {
      const std::int64_t at = first + (t < count ? t : count - 1);
      const auto x = a.x.template load<W>(at * size.length + k);
#pragma unroll
      for (int e = 0; e < W; ++e) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) sums[t * kRows + r] += x[e] * weight[r][e];
        if (row == 0) of_squares[t] += x[e] * x[e];
      }
    }
  }
#pragma unroll
  for (int part = 0; part < kSums; part += kWarp) {
    float values[kWarp];
#pragma unroll
    for (int i = 0; i < kWarp; ++i) values[i] = sums[part + i];
    const float total = warp_sums(values);
    const int t = (part + lane) / kRows, r = row + (part + lane) % kRows;
    if (t < count && r < size.rows) products[t * size.rows + r] = total;
  }
  if (row != 0) return;
  const float total = warp_sums(of_squares);
  if (lane < count) squares[lane] = total;
}

/// The mappings of token `t` of the tile; `pre` stays for the mix.
template <int N>
__device__ void make_coefficients(const Forward& a, std::int64_t first, int t,
                                  const Shared<float>& products, const Shared<float>& squares,
                                  const Shared<float>& pre) {
  using Sinkhorn = SinkhornThread<N, NoDivisors>;
  const StreamSizes& size = a.size;
  StreamMappingMath<N, float, float, Span<const float>, Sinkhorn> mapping(
      size.rule, a.scale, a.base, static_cast<float>(size.width),
      Sinkhorn(size.rule.convention, size.iterations, {}));
  StreamCoefficients<N, float> out;
  mapping.forward(products.part(t * size.raw, size.raw), squares.part(t * size.norms, size.norms),
                  out);
  const std::int64_t token = first + t;
  for (int i = 0; i < N; ++i) {
    pre[t * N + i] = out.pre[i];
    a.pre[token * N + i] = out.pre[i];
  }
  if (size.rule.is_head()) return;
  for (int i = 0; i < N; ++i) a.post[token * N + i] = out.post[i];
  for (int k = 0; k < N * N; ++k) a.mix[token * N * N + k] = out.mix[k];
}

template <int N, int W>
__device__ void mix_input(const Forward& a, std::int64_t first, int count,
                          const Shared<float>& pre) {
  const std::int64_t width = a.size.width;
  const int packs = static_cast<int>(width / W);
  for (int i = static_cast<int>(threadIdx.x); i < count * packs; i += blockDim.x) {
    const int t = i / packs, c = i % packs * W;
    Pack<float, W> sum;
#pragma unroll
    for (int e = 0; e < W; ++e) sum[e] = 0.0f;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const auto x = a.x.template load<W>(((first + t) * N + j) * width + c);
      const float weight = pre[t * N + j];
#pragma unroll
      for (int e = 0; e < W; ++e) sum[e] += weight * x[e];
    }
    a.input.template store<W>((first + t) * width + c, sum);
  }
}

/// The streams of a tile are read from memory once, and for the mix from the cache.
template <int N>
__global__ void __launch_bounds__(kMostWarps* kWarp) stream_read_kernel(Forward a) {
  const StreamSizes& size = a.size;
  SharedMemory memory;
  const auto products = memory.take<float>(kTileTokens * size.raw);
  const auto squares = memory.take<float>(kTileTokens * size.norms);
  const auto pre = memory.take<float>(kTileTokens * N);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kTileTokens;
  const int count = size.tile_tokens(first), thread = static_cast<int>(threadIdx.x);
  const int all = count * size.norms, groups = (size.rows + kRows - 1) / kRows;
  const int tasks = groups * ((all + kTileTokens - 1) / kTileTokens);
  for (int task = thread / kWarp; task < tasks; task += static_cast<int>(blockDim.x) / kWarp) {
    const int begin = task / groups * kTileTokens, row = task % groups * kRows;
    const int rows = all - begin < kTileTokens ? all - begin : kTileTokens;
    const auto to = products.part(begin * size.rows, rows * size.rows);
    const auto to_squares = squares.part(begin, rows);
    if (size.packs)
      add_products<kWidest<float>>(a, first * size.norms + begin, rows, row, to, to_squares);
    else
      add_products<1>(a, first * size.norms + begin, rows, row, to, to_squares);
  }
  __syncthreads();
  for (int i = thread; i < count * size.raw; i += static_cast<int>(blockDim.x))
    a.products[first * size.raw + i] = products[i];
  for (int i = thread; i < all; i += static_cast<int>(blockDim.x))
    a.squares[first * size.norms + i] = squares[i];
  if (thread < count) make_coefficients<N>(a, first, thread, products, squares, pre);
  __syncthreads();
  if (size.packs)
    mix_input<N, kWidest<float>>(a, first, count, pre);
  else
    mix_input<N, 1>(a, first, count, pre);
}

void forward(const Tensor& x, const StreamParameters& parameters, const StreamReadArgs& args,
             const StreamReadOutput& result) {
  check_dtype(x, DType::f32, "stream_read", "x");
  const StreamSizes size(x, args, are_aligned({&x, &parameters.fn, &result.input}));
  if (size.tokens == 0) return;
  const std::int64_t tasks = ceil_divide(size.rows, kRows) * size.norms;
  const auto warps =
      static_cast<unsigned>(std::clamp<std::int64_t>(tasks, kFewestWarps, kMostWarps));
  const auto floats = [](std::int64_t count) {
    return shared_bytes_of<float>(static_cast<std::size_t>(count));
  };
  dispatch_streams(x.dim(-2), [&]<int N>() {
    launch("stream_read",
           {static_cast<unsigned>(size.tiles()), warps * kWarp,
            floats(kTileTokens * size.raw) + floats(kTileTokens * size.norms) +
                floats(kTileTokens * N)},
           stream_read_kernel<N>,
           Forward{size, span<const float>(x), span<const float>(parameters.fn),
                   span<const float>(parameters.base), span<const float>(parameters.scale),
                   span<float>(result.input), span<float>(result.pre), span<float>(result.post),
                   span<float>(result.mix), span<float>(result.products),
                   span<float>(result.squares)});
  });
}

}  // namespace

void register_stream_read() {
  stream_read_table().set(DeviceType::cuda, {forward, stream_read_backward_cuda});
}

}  // namespace lectern::cuda
