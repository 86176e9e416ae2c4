#include "core/ops/stream_count.h"
#include "cuda/matrix_product.h"
#include "cuda/ops/column_sum.h"
#include "cuda/ops/stream_read_backward.h"
#include "cuda/ops/stream_tile.h"

namespace lectern::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarp;
constexpr int kGroups = 3;  // of rows: pre, post, res

struct Backward {
  StreamSizes size;
  int active;    // threads that turn coefficients around
  int divisors;  // of each of them
  Span<const float> grad_input;
  Span<const float> grad_mixed, grad_post;  // may not exist: zero
  Span<const float> x, products, squares, fn, base, scale;
  Span<float> grad_x;         // may not exist
  Span<float> grad_products;  // [tokens, raw]; may not exist
  Span<float> terms;          // [tokens, raw + 3] of grad_base and grad_scale; likewise
};

/// Shared memory of a block, by token.
struct Tile {
  Shared<float> dot;       // [1 + N, N]: grad_input . x_j, then grad_mixed_i . x_j
  Shared<float> pre, mix;  // [N], [N, N]
  Shared<float> factor;    // [norms]
  Shared<float> products;  // [raw]: gradients
  Shared<float> divisors;

  static std::size_t bytes(int streams, const StreamSizes& size, int active, int divisors) {
    const auto floats = [](int count) {
      return shared_bytes_of<float>(static_cast<std::size_t>(count));
    };
    return floats(kTileTokens * (1 + streams) * streams) + floats(kTileTokens * streams) +
           floats(kTileTokens * streams * streams) + floats(kTileTokens * size.norms) +
           floats(kTileTokens * size.raw) + floats(active * divisors);
  }
};

template <int N>
__device__ Tile tile_in(SharedMemory& memory, const Backward& a) {
  // Braces: the members are taken in this order.
  return Tile{
      memory.take<float>(kTileTokens * (1 + N) * N), memory.take<float>(kTileTokens * N),
      memory.take<float>(kTileTokens * N * N),       memory.take<float>(kTileTokens * a.size.norms),
      memory.take<float>(kTileTokens * a.size.raw),  memory.take<float>(a.active * a.divisors)};
}

/// A warp has a token at a time.
template <int N, int W>
__device__ void make_dots(const Backward& a, std::int64_t first, int count,
                          const Shared<float>& dot) {
  constexpr int kDots = (1 + N) * N, kSums = (kDots + kWarp - 1) / kWarp * kWarp;
  const std::int64_t width = a.size.width;
  const int warp = static_cast<int>(threadIdx.x) / kWarp,
            lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int t = warp; t < count; t += kWarps) {
    const std::int64_t token = first + t;
    float sums[kSums];
#pragma unroll
    for (int i = 0; i < kSums; ++i) sums[i] = 0.0f;
    for (std::int64_t c = lane * W; c < width; c += kWarp * W) {
      Pack<float, W> x[N];
#pragma unroll
      for (int j = 0; j < N; ++j) x[j] = a.x.template load<W>((token * N + j) * width + c);
      const auto add = [&](const Pack<float, W>& grad, int begin) {
#pragma unroll
        for (int j = 0; j < N; ++j) {
#pragma unroll
          for (int e = 0; e < W; ++e) sums[begin + j] += grad[e] * x[j][e];
        }
      };
      add(a.grad_input.template load<W>(token * width + c), 0);
      if (!a.grad_mixed.exists()) continue;
#pragma unroll
      for (int i = 0; i < N; ++i)
        add(a.grad_mixed.template load<W>((token * N + i) * width + c), (1 + i) * N);
    }
#pragma unroll
    for (int part = 0; part < kSums; part += kWarp) {
      float values[kWarp];
#pragma unroll
      for (int i = 0; i < kWarp; ++i) values[i] = sums[part + i];
      const float total = warp_sums(values);
      if (part + lane < kDots) dot[t * kDots + part + lane] = total;
    }
  }
}

/// Where a token's gradients of the coefficients go.
struct Gradients {
  Shared<float> products;
  Span<float> saved_products, terms;
  std::int64_t product_begin, term_begin;
  float scales[kGroups];

  __device__ void logit(int row, float grad) const {
    if (terms.exists()) terms[term_begin + row] = grad;
  }
  __device__ void scale(int group, float term) { scales[group] += term; }
  __device__ void product(int raw, float grad) const {
    products[raw] = grad;
    if (saved_products.exists()) saved_products[product_begin + raw] = grad;
  }
};

/// Thread `thread` for token `t` of the tile: coefficients again, and their gradients.
template <int N>
__device__ void turn_coefficients(const Backward& a, std::int64_t first, int t, int thread,
                                  const Tile& tile) {
  using Sinkhorn = SinkhornThread<N, ThreadDivisors>;
  const StreamSizes& size = a.size;
  const std::int64_t token = first + t;
  StreamMappingMath<N, float, float, Span<const float>, Sinkhorn> mapping(
      size.rule, a.scale, a.base, static_cast<float>(size.width),
      Sinkhorn(size.rule.convention, size.iterations, {tile.divisors, a.active, thread}));
  StreamCoefficients<N, float> grad, value;
  const auto dot = tile.dot.part(t * (1 + N) * N, (1 + N) * N);
  for (int j = 0; j < N; ++j) {
    grad.pre[j] = dot[j];
    grad.post[j] = a.grad_post.exists() ? a.grad_post[token * N + j] : 0.0f;
  }
  for (int k = 0; k < N * N; ++k) grad.mix[k] = dot[N + k];
  const SpanPart products{a.products, token * size.raw}, squares{a.squares, token * size.norms};
  mapping.forward(products, squares, value);
  float factor[N];
  Gradients out{tile.products.part(t * size.raw, size.raw),
                a.grad_products,
                a.terms,
                token * size.raw,
                token * (size.raw + kGroups),
                {0.0f, 0.0f, 0.0f}};
  mapping.backward(products, squares, grad, 1.0f, out, factor);
  if (a.terms.exists())
    for (int group = 0; group < kGroups; ++group)
      a.terms[out.term_begin + size.raw + group] = out.scales[group];
  for (int i = 0; i < size.norms; ++i) tile.factor[t * size.norms + i] = factor[i];
  for (int j = 0; j < N; ++j) tile.pre[t * N + j] = value.pre[j];
  if (size.rule.is_head()) return;
  for (int k = 0; k < N * N; ++k) tile.mix[t * N * N + k] = value.mix[k];
}

/// A thread has one pack of columns of all streams of a few tokens, which share the projection.
template <int N, int W, bool kPerStream>
__device__ void write_grad_x(const Backward& a, std::int64_t first, int count, const Tile& tile) {
  constexpr int kTokens = N <= 4 ? 4 : 2;
  const StreamSizes& size = a.size;
  const std::int64_t width = size.width;
  const int packs = static_cast<int>(width / W), groups = (count + kTokens - 1) / kTokens;
  for (int i = static_cast<int>(threadIdx.x); i < packs * groups; i += kThreads) {
    const int begin = i / packs * kTokens, c = i % packs * W;
    Pack<float, W> total[kTokens][N];
#pragma unroll
    for (int k = 0; k < kTokens; ++k) {
      // Tokens that do not exist repeat the last one.
      const int t = begin + k < count ? begin + k : count - 1;
      const std::int64_t token = first + t;
      const auto input = a.grad_input.template load<W>(token * width + c);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const auto x = a.x.template load<W>((token * N + j) * width + c);
        const float factor = tile.factor[kPerStream ? t * N + j : t], pre = tile.pre[t * N + j];
#pragma unroll
        for (int e = 0; e < W; ++e) total[k][j][e] = factor * x[e] + pre * input[e];
      }
      if (!a.grad_mixed.exists()) continue;
#pragma unroll
      for (int m = 0; m < N; ++m) {
        const auto mixed = a.grad_mixed.template load<W>((token * N + m) * width + c);
#pragma unroll
        for (int j = 0; j < N; ++j) {
          const float weight = tile.mix[(t * N + m) * N + j];
#pragma unroll
          for (int e = 0; e < W; ++e) total[k][j][e] += weight * mixed[e];
        }
      }
    }
    for (int r = 0; r < size.rows; ++r) {
      constexpr int kParts = kPerStream ? 1 : N;
      Pack<float, W> row[kParts];
#pragma unroll
      for (int j = 0; j < kParts; ++j)
        row[j] = a.fn.template load<W>((static_cast<std::int64_t>(r) * kParts + j) * width + c);
#pragma unroll
      for (int k = 0; k < kTokens; ++k) {
        const int t = begin + k < count ? begin + k : count - 1;
#pragma unroll
        for (int j = 0; j < N; ++j) {
          const float grad = tile.products[t * size.raw + (kPerStream ? j * size.rows : 0) + r];
#pragma unroll
          for (int e = 0; e < W; ++e) total[k][j][e] += grad * row[kPerStream ? 0 : j][e];
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kTokens; ++k)
#pragma unroll
      for (int j = 0; j < N; ++j)
        if (begin + k < count)
          a.grad_x.template store<W>(((first + begin + k) * N + j) * width + c, total[k][j]);
  }
}

template <int N, int W>
__device__ void write_grad_x(const Backward& a, std::int64_t first, int count, const Tile& tile) {
  if (a.size.rule.is_direct())
    write_grad_x<N, W, true>(a, first, count, tile);
  else
    write_grad_x<N, W, false>(a, first, count, tile);
}

/// One pass over x and its gradients, which are read again from the cache for grad_x.
template <int N>
__global__ void __launch_bounds__(kThreads) stream_read_backward_kernel(Backward a) {
  SharedMemory memory;
  const Tile tile = tile_in<N>(memory, a);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kTileTokens;
  const int count = a.size.tile_tokens(first), thread = static_cast<int>(threadIdx.x);
  if (a.size.packs)
    make_dots<N, kWidest<float>>(a, first, count, tile.dot);
  else
    make_dots<N, 1>(a, first, count, tile.dot);
  __syncthreads();
  if (thread < a.active)
    for (int t = thread; t < count; t += a.active) turn_coefficients<N>(a, first, t, thread, tile);
  __syncthreads();
  if (!a.grad_x.exists()) return;
  if (a.size.packs)
    write_grad_x<N, kWidest<float>>(a, first, count, tile);
  else
    write_grad_x<N, 1>(a, first, count, tile);
}

/// grad_fn = grad_products^T x; base and scale are sums over the tokens.
void sum_parameters(const StreamSizes& size, const Tensor& x, const Tensor& grad_products,
                    const Tensor& terms, const StreamReadGradients& result) {
  matrix_product({.transpose_a = true,
                  .m = size.rows,
                  .n = size.length,
                  .k = size.tokens * size.norms,
                  .lda = size.rows,
                  .ldb = size.length,
                  .ldc = size.length},
                 grad_products, x, result.fn);
  const std::int64_t raw = size.raw, scales = result.scale.numel();
  const Tensor sums = Tensor::empty({raw + kGroups}, DType::f32, x.device());
  column_sum(terms, size.tokens, raw + kGroups, sums);
  result.base.copy_from(sums.slice(0, 0, raw));
  result.scale.copy_from(sums.slice(0, raw, raw + scales));
}

}  // namespace

void stream_read_backward_cuda(const Tensor& grad_input, const Tensor& grad_mixed,
                               const Tensor& grad_post, const Tensor& x,
                               const StreamParameters& parameters, const StreamReadOutput& forward,
                               const StreamReadArgs& args, const StreamReadGradients& result) {
  check_dtype(x, DType::f32, "stream_read", "x");
  const StreamSizes size(x, args,
                         are_aligned({&x, &grad_input, &grad_mixed, &parameters.fn, &result.x}));
  const bool need_parameters = result.fn.defined();
  if (size.tokens == 0) {
    if (!need_parameters) return;
    for (const Tensor& grad : {result.fn, result.base, result.scale}) grad.fill(0);
    return;
  }
  Tensor grad_products, terms;
  if (need_parameters) {
    grad_products = Tensor::empty({size.tokens, size.raw}, DType::f32, x.device());
    terms = Tensor::empty({size.tokens, size.raw + kGroups}, DType::f32, x.device());
  }
  const int streams = static_cast<int>(x.dim(-2));
  const bool iterates = args.mapping == StreamMapping::mhc && args.res;
  const int divisors = iterates ? divisor_count(args.convention, size.iterations, streams) : 0;
  const int active = divisor_threads(divisors, kTileTokens);
  dispatch_streams(streams, [&]<int N>() {
    launch("stream_read_backward",
           {static_cast<unsigned>(size.tiles()), kThreads, Tile::bytes(N, size, active, divisors)},
           stream_read_backward_kernel<N>,
           Backward{size, active, divisors, span<const float>(grad_input),
                    span<const float>(grad_mixed), span<const float>(grad_post),
                    span<const float>(x), span<const float>(forward.products),
                    span<const float>(forward.squares), span<const float>(parameters.fn),
                    span<const float>(parameters.base), span<const float>(parameters.scale),
                    span<float>(result.x), span<float>(grad_products), span<float>(terms)});
  });
  if (need_parameters) sum_parameters(size, x, grad_products, terms, result);
}

}  // namespace lectern::cuda
