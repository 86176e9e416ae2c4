// Tokens go through in blocks of one register (16 f32): a block's streams stay in L2 while they are
// normed, projected, mapped and mixed, so that memory sees them once.
#include "core/ops/stream_read_cpu.h"

#include "core/cpu/row_chunks.h"
#include "core/ops/stream_mapping_cpu.h"
#include "core/ops/stream_tiles.h"
#include "core/parallel.h"

namespace lectern {
namespace {

using stream_tiles::kPanelColumns;
using stream_tiles::PanelLayout;

/// Sizes that every part of a kernel needs.
template <int N, typename T>
struct Problem {
  static constexpr int kBlock = Lanes<T>::kCount;  ///< tokens at a time

  std::int64_t tokens, width;
  PanelLayout layout;
  int raw;    ///< raw products a token
  int norms;  ///< sums of squares a token
  bool per_stream;

  Problem(const Tensor& x, StreamMapping mapping)
      : tokens(x.numel() / std::max<std::int64_t>(1, N * x.dim(-1))),
        width(x.dim(-1)),
        layout(width, mapping == StreamMapping::hc ? 1 : N,
               stream_math::projection_rows(mapping, N)),
        raw(stream_math::mapping_rows(mapping, N)),
        norms(stream_math::norm_count(mapping, N)),
        per_stream(mapping == StreamMapping::hc) {}

  std::int64_t blocks() const { return (tokens + kBlock - 1) / kBlock; }
  int block_tokens(std::int64_t first) const {
    return static_cast<int>(std::min<std::int64_t>(kBlock, tokens - first));
  }
};

/// The projection in panels; a tensor, because its memory is aligned to whole registers.
template <int N, typename T>
Tensor pack(const Problem<N, T>& problem, const Tensor& fn) {
  const PanelLayout& layout = problem.layout;
  const Tensor panels = Tensor::empty({layout.size()}, fn.dtype());
  const T* from = fn.data<T>();
  T* to = panels.data<T>();
  parallel_for(layout.panels(), 4, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      stream_tiles::pack_panel(layout, from, i / layout.panels_per_stream(),
                               i % layout.panels_per_stream(), to + i * layout.panel_size());
  });
  return panels;
}

// ---- forward

/// Raw products and sums of squares of one block of tokens.
template <int N, typename T>
class BlockProducts {
 public:
  using V = Lanes<T>;
  static constexpr int kBlock = Lanes<T>::kCount;

  explicit BlockProducts(const Problem<N, T>& problem)
      : problem_(problem),
        groups_((problem.layout.rows + stream_tiles::kProductRows - 1) /
                stream_tiles::kProductRows),
        stride_(groups_ * stream_tiles::kProductRows),
        sums_(static_cast<std::size_t>(kBlock * sets() * stride_)) {}

  /// x: the block's first token. products [tokens, raw], squares [tokens, norms].
  void run(const T* x, int tokens, const T* panels, T* products, T* squares) {
    std::fill(sums_.begin(), sums_.end(), V(T(0)));
    const PanelLayout& layout = problem_.layout;
    for (int stream = 0; stream < N; ++stream)
      for (std::int64_t panel = 0; panel < layout.panels_per_stream(); ++panel)
        add_panel(x, tokens, stream, panel,
                  panels + (layout.first_panel(stream) + panel) * layout.panel_size());
    for (int t = 0; t < tokens; ++t)
      for (int set = 0; set < sets(); ++set)
        for (int r = 0; r < layout.rows; ++r)
          products[t * problem_.raw + set * layout.rows + r] = at(t, set)[r].sum();
    add_squares(x, tokens, squares);
  }

 private:
  int sets() const { return problem_.per_stream ? N : 1; }
  V* at(int token, int set) { return sums_.data() + (token * sets() + set) * stride_; }

  void add_panel(const T* x, int tokens, int stream, std::int64_t panel, const T* values) {
    const std::int64_t width = problem_.width;
    const int columns = problem_.layout.columns(panel), set = problem_.per_stream ? stream : 0;
    for (int first = 0; first < tokens; first += stream_tiles::kTokens) {
      const T* rows[stream_tiles::kTokens];
      for (int t = 0; t < stream_tiles::kTokens; ++t)  // a missing token: the last one again
        rows[t] =
            x + (std::min(first + t, tokens - 1) * N + stream) * width + panel * kPanelColumns;
      // The next panel of these tokens follows in memory; four short runs are too few for the
      // hardware to see a pattern.
      for (const T* row : rows)
        for (int c = 0; c < columns; c += V::kCount) __builtin_prefetch(row + columns + c);
      for (int group = 0; group < groups_; ++group) {
        const T* panel_rows = values + group * stream_tiles::kProductRows * kPanelColumns;
        V* sums = at(first, set) + group * stream_tiles::kProductRows;
        stream_tiles::add_products<T>(rows, panel_rows, columns, sums, sets() * stride_);
        stream_tiles::add_product_tail<T>(rows, panel_rows, columns, sums, sets() * stride_);
      }
    }
  }

  void add_squares(const T* x, int tokens, T* squares) const {
    const std::int64_t length = problem_.per_stream ? problem_.width : N * problem_.width;
    for (std::int64_t i = 0; i < std::int64_t{tokens} * problem_.norms; ++i) {
      const T* row = x + i * length;
      T total = 0;
#pragma omp simd reduction(+ : total)
      for (std::int64_t c = 0; c < length; ++c) total += row[c] * row[c];
      squares[i] = total;
    }
  }

  const Problem<N, T>& problem_;
  int groups_, stride_;
  std::vector<V> sums_;
};

/// out[c] = sum_i weight[i] x[i][c]
template <int N, typename T>
void pre_mix(const T* x, const T* weight, std::int64_t width, T* out) {
#pragma omp simd
  for (std::int64_t c = 0; c < width; ++c) {
    T total = weight[0] * x[c];
    for (int i = 1; i < N; ++i) total += weight[i] * x[i * width + c];
    out[c] = total;
  }
}

template <int N, typename T>
void forward(const Tensor& x, const StreamParameters& parameters, const StreamReadArgs& args,
             const StreamReadOutput& result) {
  const Problem<N, T> problem(x, args.mapping);
  const Tensor panels = pack(problem, parameters.fn);
  const bool has_mix = result.mix.defined();
  const T *in = x.data<T>(), *scale = parameters.scale.data<T>(), *base = parameters.base.data<T>();
  T *input = result.input.data<T>(), *pre = result.pre.data<T>(),
    *products = result.products.data<T>(), *squares = result.squares.data<T>();
  T *post = has_mix ? result.post.data<T>() : nullptr,
    *mix = has_mix ? result.mix.data<T>() : nullptr;
  parallel_for(problem.blocks(), 1, [&](std::int64_t begin, std::int64_t end) {
    BlockProducts<N, T> block(problem);
    MappingBlock<N, T> mapping(args, scale, base, problem.width);
    Lanes<T> raw[MappingBlock<N, T>::kMaxRows], sums[N];
    StreamCoefficients<N, Lanes<T>> out{};
    for (std::int64_t b = begin; b < end; ++b) {
      const std::int64_t first = b * problem.kBlock;
      const int tokens = problem.block_tokens(first);
      const T* streams = in + first * N * problem.width;
      T *block_products = products + first * problem.raw,
        *block_squares = squares + first * problem.norms;
      block.run(streams, tokens, panels.data<T>(), block_products, block_squares);
      load_tokens(block_products, problem.raw, tokens, raw);
      load_tokens(block_squares, problem.norms, tokens, sums);
      mapping.forward(raw, sums, out);
      store_tokens(out.pre, N, tokens, pre + first * N);
      if (has_mix) {
        store_tokens(out.post, N, tokens, post + first * N);
        store_tokens(out.mix, N * N, tokens, mix + first * N * N);
      }
      for (int t = 0; t < tokens; ++t)
        pre_mix<N>(streams + t * N * problem.width, pre + (first + t) * N, problem.width,
                   input + (first + t) * problem.width);
    }
  });
}

// ---- backward

template <typename T>
struct BackwardInputs {
  const T *grad_input, *grad_mixed, *grad_post;  ///< the last two may be null
  const T *x, *products, *squares;
  const T* panels;
  T* grad_x;  ///< may be null
};

/// One thread's share of the tokens, block by block; sums of parameter gradients stay in it.
template <int N, typename T>
class BackwardBlock {
 public:
  using V = Lanes<T>;
  static constexpr int kBlock = Lanes<T>::kCount, kMaxRows = MappingBlock<N, T>::kMaxRows;

  BackwardBlock(const Problem<N, T>& problem, const StreamReadArgs& args, const T* scale,
                const T* base, const BackwardInputs<T>& in, T* grad_panels)
      : problem_(problem),
        args_(args),
        mapping_(args, scale, base, problem.width),
        in_(in),
        grad_panels_(grad_panels),
        product_stride_((problem.layout.rows + 7) / 8 * 8 * (problem.per_stream ? N : 1)),
        grad_products_(static_cast<std::size_t>(kBlock * product_stride_), T(0)) {
    std::fill_n(grad_base_, kMaxRows, V(T(0)));
    std::fill_n(grad_scale_, 3, V(T(0)));
  }

  void run(std::int64_t first) {
    const int tokens = problem_.block_tokens(first);
    coefficient_gradients(first, tokens);
    if (in_.grad_x != nullptr) write_grad_x(first, tokens);
    if (grad_panels_ != nullptr) add_grad_fn(first, tokens);
  }

  /// Sums over the tokens of all run() calls; base has mapping_rows entries, scale 3.
  void sums(T* base, T* scale) const {
    for (int row = 0; row < mapping_.rows(); ++row) base[row] = grad_base_[row].sum();
    for (int group = 0; group < 3; ++group) scale[group] = grad_scale_[group].sum();
  }

 private:
  /// grad_input . x_j and grad_mixed_i . x_j of one token: [N + 1, N].
  void dots(std::int64_t token, T* out) const {
    const std::int64_t width = problem_.width;
    const T *left[N + 1], *right[N];
    left[0] = in_.grad_input + token * width;
    for (int i = 0; i < N; ++i) {
      right[i] = in_.x + (token * N + i) * width;
      left[i + 1] = in_.grad_mixed == nullptr ? nullptr : in_.grad_mixed + (token * N + i) * width;
    }
    if (in_.grad_mixed == nullptr) {
      std::fill_n(out, (N + 1) * N, T(0));
      stream_tiles::dot_products<1, N>(left, right, width, out, N);
    } else if constexpr (N <= 4) {
      stream_tiles::dot_products<N + 1, N>(left, right, width, out, N);
    } else {
      // More sums than registers: two streams at a time, the last pair overlapping when N is odd.
      for (int j = 0; j < N; j += 2) {
        const int at = std::min(j, N - 2);
        stream_tiles::dot_products<N + 1, 2>(left, right + at, width, out + at, N);
      }
    }
  }

  void coefficient_gradients(std::int64_t first, int tokens) {
    T dot[kBlock * (N + 1) * N];
    for (int t = 0; t < tokens; ++t) dots(first + t, dot + t * (N + 1) * N);
    V all[(N + 1) * N], raw[kMaxRows], squares[N], factor[N], grad_raw[kMaxRows];
    StreamCoefficients<N, V> grad, value;
    load_tokens(dot, (N + 1) * N, tokens, all);
    std::copy_n(all, N, grad.pre);
    std::copy_n(all + N, N * N, grad.mix);
    if (in_.grad_post != nullptr)
      load_tokens(in_.grad_post + first * N, N, tokens, grad.post);
    else
      std::fill_n(grad.post, N, V(T(0)));
    load_tokens(in_.products + first * problem_.raw, problem_.raw, tokens, raw);
    load_tokens(in_.squares + first * problem_.norms, problem_.norms, tokens, squares);
    mapping_.forward(raw, squares, value);
    mapping_.backward(raw, squares, grad, tokens, grad_raw, factor, grad_base_, grad_scale_);
    store_tokens(value.pre, N, tokens, pre_);
    if (in_.grad_mixed != nullptr) store_tokens(value.mix, N * N, tokens, mix_);
    store_tokens(factor, problem_.norms, tokens, factor_);
    // Padded to whole tiles; the padding stays zero.
    const int rows = problem_.layout.rows, padded = (rows + 7) / 8 * 8;
    for (int t = 0; t < tokens; ++t)
      for (int k = 0; k < problem_.raw; ++k)
        grad_products_[static_cast<std::size_t>(t * product_stride_ + k / rows * padded +
                                                k % rows)] = grad_raw[k].v[t];
  }

  const T* grad_products(int token, int stream) const {
    const int padded = (problem_.layout.rows + 7) / 8 * 8;
    return grad_products_.data() + token * product_stride_ +
           (problem_.per_stream ? stream * padded : 0);
  }

  /// VC registers of columns of kTokens tokens of stream j; `tail` < kCount only when VC = 1.
  template <int VC>
  void grad_x_tile(std::int64_t first, int t0, int tokens, int j, const T* panel,
                   std::int64_t column, int panel_column, int tail) {
    constexpr int kTokens = stream_tiles::kTokens;
    const std::int64_t width = problem_.width;
    const auto load = [&](const T* from) {
      return VC == 1 && tail < V::kCount ? V::load(from, tail) : V::load(from);
    };
    V total[kTokens][VC];
    const T* weight[kTokens];
#pragma GCC unroll 4
    for (int k = 0; k < kTokens; ++k) {
      const int t = std::min(t0 + k, tokens - 1);
      weight[k] = grad_products(t, j);
      const std::int64_t token = first + t;
      const V factor(factor_[problem_.per_stream ? t * N + j : t]), pre(pre_[t * N + j]);
      const T* x = in_.x + (token * N + j) * width + column;
      const T* input = in_.grad_input + token * width + column;
#pragma GCC unroll 4
      for (int v = 0; v < VC; ++v)
        total[k][v] = factor * load(x + v * V::kCount) + pre * load(input + v * V::kCount);
      if (in_.grad_mixed == nullptr) continue;
      const T* mixed = in_.grad_mixed + token * N * width + column;
      for (int i = 0; i < N; ++i) {
        const V w(mix_[(t * N + i) * N + j]);
#pragma GCC unroll 4
        for (int v = 0; v < VC; ++v) total[k][v] += w * load(mixed + i * width + v * V::kCount);
      }
    }
    for (int r = 0; r < problem_.layout.rows; ++r) {
      V row[VC];
#pragma GCC unroll 4
      for (int v = 0; v < VC; ++v)
        row[v] = V::load(panel + r * kPanelColumns + panel_column + v * V::kCount);
#pragma GCC unroll 4
      for (int k = 0; k < kTokens; ++k) {
        const V w(weight[k][r]);
#pragma GCC unroll 4
        for (int v = 0; v < VC; ++v) total[k][v] += w * row[v];
      }
    }
#pragma GCC unroll 4
    for (int k = 0; k < kTokens; ++k) {
      if (t0 + k >= tokens) break;
      T* out = in_.grad_x + ((first + t0 + k) * N + j) * width + column;
#pragma GCC unroll 4
      for (int v = 0; v < VC; ++v)
        VC == 1 && tail < V::kCount ? total[k][v].store(out, tail)
                                    : total[k][v].store(out + v * V::kCount);
    }
  }

  void write_grad_x(std::int64_t first, int tokens) {
    constexpr int kWide = 4;
    const PanelLayout& layout = problem_.layout;
    for (std::int64_t p = 0; p < layout.panels_per_stream(); ++p) {
      const int columns = layout.columns(p);
      int c = 0;
      // All streams of a few columns and tokens in turn: what they share, grad_mixed and
      // grad_input, stays in L1 meanwhile.
      const auto tiles = [&](auto tile) {
        for (int t = 0; t < tokens; t += stream_tiles::kTokens)
          for (int j = 0; j < N; ++j)
            tile(t, j, in_.panels + (layout.first_panel(j) + p) * layout.panel_size());
      };
      for (; c + kWide * V::kCount <= columns; c += kWide * V::kCount)
        tiles([&](int t, int j, const T* panel) {
          grad_x_tile<kWide>(first, t, tokens, j, panel, p * kPanelColumns + c, c, V::kCount);
        });
      for (; c < columns; c += V::kCount)
        tiles([&](int t, int j, const T* panel) {
          grad_x_tile<1>(first, t, tokens, j, panel, p * kPanelColumns + c, c,
                         std::min(V::kCount, columns - c));
        });
    }
  }

  void add_grad_fn(std::int64_t first, int tokens) {
    constexpr int kWide = 2;
    const PanelLayout& layout = problem_.layout;
    const T* x[kBlock];
    for (int j = 0; j < N; ++j)
      for (std::int64_t p = 0; p < layout.panels_per_stream(); ++p) {
        T* panel = grad_panels_ + (layout.first_panel(j) + p) * layout.panel_size();
        const int columns = layout.columns(p);
        for (int t = 0; t < tokens; ++t)
          x[t] = in_.x + ((first + t) * N + j) * problem_.width + p * kPanelColumns;
        for (int r = 0; r < layout.rows; r += stream_tiles::kGradientRows) {
          const T* weight = grad_products(0, j) + r;
          int c = 0;
          for (; c + kWide * V::kCount <= columns; c += kWide * V::kCount)
            stream_tiles::add_outer<kWide>(x, tokens, weight, product_stride_, c, V::kCount,
                                           panel + r * kPanelColumns);
          for (; c < columns; c += V::kCount)
            stream_tiles::add_outer<1>(x, tokens, weight, product_stride_, c,
                                       std::min(V::kCount, columns - c), panel + r * kPanelColumns);
        }
      }
  }

  const Problem<N, T>& problem_;
  StreamReadArgs args_;
  MappingBlock<N, T> mapping_;
  BackwardInputs<T> in_;
  T* grad_panels_;
  int product_stride_;
  std::vector<T> grad_products_;  ///< [kBlock][product_stride_]
  T pre_[kBlock * N], mix_[kBlock * N * N], factor_[kBlock * N];
  V grad_base_[kMaxRows], grad_scale_[3];
};

/// Chunks of tokens with one partial sum each: enough for the threads of a large machine, few
/// enough that the partial projections cost little memory.
std::int64_t chunk_blocks(std::int64_t blocks) {
  return std::max<std::int64_t>(8, (blocks + 31) / 32);
}

template <int N, typename T>
void backward(const Tensor& grad_input, const Tensor& grad_mixed, const Tensor& grad_post,
              const Tensor& x, const StreamParameters& parameters, const StreamReadOutput& saved,
              const StreamReadArgs& args, const StreamReadGradients& result) {
  const Problem<N, T> problem(x, args.mapping);
  const PanelLayout& layout = problem.layout;
  const Tensor panels = pack(problem, parameters.fn);
  const bool need_parameters = result.fn.defined();
  const auto data_of = [](const Tensor& tensor) {
    return tensor.defined() ? tensor.data<T>() : nullptr;
  };
  const BackwardInputs<T> in{data_of(grad_input), data_of(grad_mixed),      data_of(grad_post),
                             x.data<T>(),         saved.products.data<T>(), saved.squares.data<T>(),
                             panels.data<T>(),    data_of(result.x)};
  const std::int64_t blocks = problem.blocks(), per_chunk = chunk_blocks(blocks);
  const std::int64_t chunks = (blocks + per_chunk - 1) / per_chunk;
  const std::int64_t rows = problem.raw, row_sums = rows + 3;
  Tensor partial_fn;
  if (need_parameters) partial_fn = Tensor::empty({chunks, layout.size()}, x.dtype());
  std::vector<T> small(static_cast<std::size_t>(chunks * row_sums));
  const T *scale = parameters.scale.data<T>(), *base = parameters.base.data<T>();
  T* partial = data_of(partial_fn);
  parallel_tasks(chunks, [&](std::int64_t chunk) {
    T* mine = partial == nullptr ? nullptr : partial + chunk * layout.size();
    if (mine != nullptr) std::fill_n(mine, layout.size(), T(0));
    BackwardBlock<N, T> block(problem, args, scale, base, in, mine);
    for (std::int64_t b = chunk * per_chunk; b < std::min(blocks, (chunk + 1) * per_chunk); ++b)
      block.run(b * problem.kBlock);
    T* sums = small.data() + chunk * row_sums;
    block.sums(sums, sums + rows);
  });
  if (!need_parameters) return;
  std::vector<T> total(static_cast<std::size_t>(std::max<std::int64_t>(layout.size(), row_sums)));
  sum_rows_in_order(small.data(), chunks, row_sums, total.data());
  std::copy_n(total.data(), rows, result.base.data<T>());
  std::copy_n(total.data() + rows, result.scale.numel(), result.scale.data<T>());
  sum_rows_in_order(partial, chunks, layout.size(), total.data());
  T* grad_fn = result.fn.data<T>();
  for (std::int64_t i = 0; i < layout.panels(); ++i)
    stream_tiles::unpack_panel(layout, total.data() + i * layout.panel_size(),
                               i / layout.panels_per_stream(), i % layout.panels_per_stream(),
                               grad_fn);
}

}  // namespace

void stream_read_forward_cpu(const Tensor& x, const StreamParameters& parameters,
                             const StreamReadArgs& args, const StreamReadOutput& result) {
  dispatch_floating(x.dtype(), "stream_read", [&]<typename T>() {
    dispatch_streams(x.dim(-2), [&]<int N>() { forward<N, T>(x, parameters, args, result); });
  });
}

void stream_read_backward_cpu(const Tensor& grad_input, const Tensor& grad_mixed,
                              const Tensor& grad_post, const Tensor& x,
                              const StreamParameters& parameters, const StreamReadOutput& forward,
                              const StreamReadArgs& args, const StreamReadGradients& result) {
  dispatch_floating(x.dtype(), "stream_read", [&]<typename T>() {
    dispatch_streams(x.dim(-2), [&]<int N>() {
      backward<N, T>(grad_input, grad_mixed, grad_post, x, parameters, forward, args, result);
    });
  });
}

}  // namespace lectern
