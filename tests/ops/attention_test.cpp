// Attention against a naive reference that builds the full score matrix (forward and backward,
// f64), finite differences, separate runs of packed samples, and itself on other numbers of
// threads.
#include "autograd/ops/attention.h"

#include "autograd/compute_dtype.h"
#include "autograd/gradient_check.h"
#include "core/parallel.h"
#include "tests/testing.h"

#include <cmath>
#include <cstring>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

struct AttentionCase {
  std::int64_t batch = 1, rows = 1;
  AttentionArgs args;
  std::int64_t grid_h = 0, grid_w = 0;
};

AttentionArgs make_args(std::int64_t heads, std::int64_t kv_heads, std::int64_t dim,
                        MaskKind mask = MaskKind::full, std::int64_t prefix = 0) {
  AttentionArgs args;
  args.heads = heads;
  args.kv_heads = kv_heads;
  args.head_dim = dim;
  args.scale = 1 / std::sqrt(double(dim));
  args.mask = mask;
  args.prefix = prefix;
  return args;
}

Tensor random_attention(const AttentionCase& c, std::uint64_t seed) {
  return random_tensor({c.batch, c.rows, (c.args.heads + 2 * c.args.kv_heads) * c.args.head_dim},
                       seed, DType::f64);
}
std::vector<Tensor> random_tables(const AttentionCase& c) {
  if (c.grid_h == 0) return {Tensor(), Tensor()};
  return {random_tensor({2 * c.grid_h - 1, c.args.head_dim}, 11, DType::f64, 0.5),
          random_tensor({2 * c.grid_w - 1, c.args.head_dim}, 12, DType::f64, 0.5)};
}

bool visible(const AttentionArgs& args, std::int64_t b, std::int64_t rows, std::int64_t i,
             std::int64_t j) {
  if (args.mask == MaskKind::full) return true;
  if (args.mask == MaskKind::prefix_causal && i < args.prefix) return j < args.prefix;
  const std::int64_t start =
      args.segment_start.defined() ? args.segment_start.data<std::int32_t>()[b * rows + i] : 0;
  return j <= i && j >= start;
}

struct Reference {
  Tensor out, log_sum_exp, grad_qkv, grad_h, grad_w;
};

/// The definition, one (batch, head) at a time, with the whole probability matrix.
/// Over 60 lines: forward and backward of the definition, to be read as one.
Reference reference(const Tensor& qkv, const Tensor& grad_out, const AttentionCase& c,
                    const Tensor& table_h, const Tensor& table_w) {
  const std::int64_t T = c.rows, H = c.args.heads, G = c.args.kv_heads, D = c.args.head_dim;
  const std::int64_t columns = (H + 2 * G) * D;
  Reference r{Tensor::zeros({c.batch, T, H * D}, DType::f64),
              Tensor::zeros({c.batch, H, T}, DType::f64), Tensor::zeros(qkv.shape(), DType::f64),
              Tensor(), Tensor()};
  if (c.grid_h > 0) {
    r.grad_h = Tensor::zeros(table_h.shape(), DType::f64);
    r.grad_w = Tensor::zeros(table_w.shape(), DType::f64);
  }
  const auto offset_h = [&](std::int64_t i, std::int64_t j) {
    return (i / c.grid_w - j / c.grid_w + c.grid_h - 1) * D;
  };
  const auto offset_w = [&](std::int64_t i, std::int64_t j) {
    return (i % c.grid_w - j % c.grid_w + c.grid_w - 1) * D;
  };
  for (std::int64_t b = 0; b < c.batch; ++b)
    for (std::int64_t h = 0; h < H; ++h) {
      const std::int64_t q0 = h * D, k0 = (H + h / (H / G)) * D, v0 = k0 + G * D;
      const double* x = qkv.data<double>() + b * T * columns;
      double* gx = r.grad_qkv.data<double>() + b * T * columns;
      const double* go = grad_out.data<double>() + b * T * H * D + h * D;
      double* out = r.out.data<double>() + b * T * H * D + h * D;
      for (std::int64_t i = 0; i < T; ++i) {
        std::vector<double> score(T, -INFINITY), p(T);
        double max = -INFINITY, sum = 0, delta = 0;
        for (std::int64_t j = 0; j < T; ++j) {
          if (!visible(c.args, b, T, i, j)) continue;
          double s = 0;
          for (std::int64_t d = 0; d < D; ++d) {
            const double q = x[i * columns + q0 + d];
            s += c.args.scale * q * x[j * columns + k0 + d];
            if (c.grid_h > 0)
              s += q * (table_h.data<double>()[offset_h(i, j) + d] +
                        table_w.data<double>()[offset_w(i, j) + d]);
          }
          score[j] = s;
          max = std::max(max, s);
        }
        for (std::int64_t j = 0; j < T; ++j) sum += p[j] = std::exp(score[j] - max);
        r.log_sum_exp.data<double>()[(b * H + h) * T + i] = max + std::log(sum);
        for (std::int64_t j = 0; j < T; ++j) p[j] /= sum;
        for (std::int64_t d = 0; d < D; ++d) {
          for (std::int64_t j = 0; j < T; ++j) out[i * H * D + d] += p[j] * x[j * columns + v0 + d];
          delta += out[i * H * D + d] * go[i * H * D + d];
        }
        for (std::int64_t j = 0; j < T; ++j) {
          if (!visible(c.args, b, T, i, j)) continue;
          double dp = 0;
          for (std::int64_t d = 0; d < D; ++d) {
            dp += go[i * H * D + d] * x[j * columns + v0 + d];
            gx[j * columns + v0 + d] += p[j] * go[i * H * D + d];
          }
          const double ds = p[j] * (dp - delta);
          for (std::int64_t d = 0; d < D; ++d) {
            const double q = x[i * columns + q0 + d];
            gx[i * columns + q0 + d] += c.args.scale * ds * x[j * columns + k0 + d];
            gx[j * columns + k0 + d] += c.args.scale * ds * q;
            if (c.grid_h == 0) continue;
            gx[i * columns + q0 + d] += ds * (table_h.data<double>()[offset_h(i, j) + d] +
                                              table_w.data<double>()[offset_w(i, j) + d]);
            r.grad_h.data<double>()[offset_h(i, j) + d] += ds * q;
            r.grad_w.data<double>()[offset_w(i, j) + d] += ds * q;
          }
        }
      }
    }
  return r;
}

/// |got - want|^2 and |want|^2 of f64 tensors.
std::pair<double, double> squared_distance(const Tensor& got, const Tensor& want) {
  double error = 0, size = 0;
  for (std::int64_t i = 0; i < want.numel(); ++i) {
    const double value = want.data<double>()[i], off = got.data<double>()[i] - value;
    error += off * off;
    size += value * value;
  }
  return {error, size};
}

/// Forward and backward in `dtype` against the reference in f64.
void compare(const AttentionCase& c, DType dtype, double bound) {
  SCOPED_TRACE(fmt::format("B {} T {} H {} G {} D {} mask {} grid {}x{} {}", c.batch, c.rows,
                           c.args.heads, c.args.kv_heads, c.args.head_dim, int(c.args.mask),
                           c.grid_h, c.grid_w, name_of(dtype)));
  const Tensor qkv = random_attention(c, 1);
  const std::vector<Tensor> tables = random_tables(c);
  const Tensor grad_out =
      random_tensor({c.batch, c.rows, c.args.heads * c.args.head_dim}, 2, DType::f64);
  const Reference want = reference(qkv, grad_out, c, tables[0], tables[1]);

  const auto cast = [&](const Tensor& t) { return t.defined() ? t.to(dtype) : t; };
  const Tensor x = cast(qkv), h = cast(tables[0]), w = cast(tables[1]);
  const AttentionResult got = attention_forward(x, c.args, h, w);
  EXPECT_TRUE(near(got.out.to(DType::f64), want.out, bound));
  EXPECT_TRUE(near(got.log_sum_exp.to(DType::f64), want.log_sum_exp, bound));
  const AttentionGradients grads = attention_backward(cast(grad_out), x, got, c.args, h, w);
  EXPECT_TRUE(near(grads.grad_qkv.to(DType::f64), want.grad_qkv, bound));
  if (c.grid_h == 0) return;
  const Tensor grad_h = grads.grad_table_h.to(DType::f64),
               grad_w = grads.grad_table_w.to(DType::f64);
  if (c.args.rounded) {
    // Entries of a table may be sums of many terms that cancel to zero, which leaves nothing but
    // the terms' rounding: they are judged in norm, beside the whole gradient of the operation.
    const auto [error_h, size_h] = squared_distance(grad_h, want.grad_h);
    const auto [error_w, size_w] = squared_distance(grad_w, want.grad_w);
    const double size_qkv = squared_distance(want.grad_qkv, want.grad_qkv).second;
    EXPECT_LE(std::sqrt(error_h + error_w), 1e-2 * std::sqrt(size_h + size_w + size_qkv));
    return;
  }
  EXPECT_TRUE(near(grad_h, want.grad_h, bound));
  EXPECT_TRUE(near(grad_w, want.grad_w, bound));
}

void compare_both(const AttentionCase& c) {
  compare(c, DType::f64, 1e-12);  // sums of up to a thousand terms of size 1
  compare(c, DType::f32, 1e-5);
  // Scores of size up to 10 from two factors rounded by up to 2^-9 each: off by up to 0.04 in the
  // worst case, which is the relative error of a probability; three quarters of that here.
  AttentionCase rounded = c;
  rounded.args.rounded = true;
  compare(rounded, DType::f32, 3e-2);
}

TEST(Attention, FullMaskAllSizes) {
  for (const std::int64_t rows : {1, 2, 7, 8, 16, 47, 48, 49, 65, 129, 196, 250})
    compare_both({2, rows, make_args(2, 2, 12)});
  for (const std::int64_t dim : {1, 4, 8, 16, 33, 48, 64, 128})
    compare_both({1, 50, make_args(2, 2, dim)});
}

TEST(Attention, CausalAndGrouped) {
  for (const std::int64_t rows : {1, 9, 64, 97, 161, 300})
    compare_both({2, rows, make_args(4, 2, 8, MaskKind::causal)});
  compare_both({1, 70, make_args(6, 1, 16, MaskKind::causal)});
}

TEST(Attention, PrefixCausal) {
  for (const std::int64_t prefix : {0, 1, 5, 40, 64, 99, 100})
    compare_both({2, 100, make_args(4, 2, 8, MaskKind::prefix_causal, prefix)});
}

TEST(Attention, SeveralKeyChunks) {  // backward splits more than 256 keys
  compare_both({1, 600, make_args(1, 1, 8)});
  compare_both({1, 530, make_args(2, 1, 8, MaskKind::causal)});
}

TEST(Attention, RelativePositions) {
  const std::int64_t grids[][2] = {{1, 1}, {2, 3},   {1, 9},   {9, 1},
                                   {5, 7}, {14, 14}, {16, 16}, {11, 20}};
  for (const auto& grid : grids)
    compare_both({2, grid[0] * grid[1], make_args(2, 2, 8), grid[0], grid[1]});
  compare_both({1, 14 * 14, make_args(1, 1, 48), 14, 14});
  compare_both({1, 35 * 31, make_args(1, 1, 4), 35, 31});  // two chunks of keys, cut inside a row
}

TEST(Attention, LargeScoresStayFinite) {
  AttentionCase c{1, 90, make_args(1, 1, 8, MaskKind::causal)};
  c.args.scale = 40;  // scores of several hundred: exp without a maximum would overflow
  compare(c, DType::f64, 1e-9);
}

/// segment_start of samples of the given lengths.
Tensor starts(const std::vector<std::int64_t>& lengths) {
  std::vector<std::int32_t> values;
  for (const std::int64_t length : lengths)
    values.insert(values.end(), std::size_t(length), std::int32_t(values.size()));
  const auto n = std::int64_t(values.size());
  return Tensor::from(values, {1, n});
}

TEST(Attention, PackedSamplesEqualSeparateRuns) {
  const std::vector<std::int64_t> lengths{70, 1, 130, 48, 95};
  AttentionCase c{1, 344, make_args(4, 2, 16, MaskKind::causal)};
  c.args.segment_start = starts(lengths);
  compare_both(c);

  const Tensor qkv = random_attention(c, 3).to(DType::f32);
  const Tensor grad_out = random_tensor({1, 344, 64}, 4);
  const AttentionResult packed = attention_forward(qkv, c.args);
  const Tensor packed_grad = attention_backward(grad_out, qkv, packed, c.args).grad_qkv;
  AttentionArgs alone = c.args;
  alone.segment_start = Tensor();
  std::int64_t first = 0;
  for (const std::int64_t length : lengths) {
    const auto part = [&](const Tensor& t) {
      return t.slice(1, first, first + length).contiguous();
    };
    const AttentionResult one = attention_forward(part(qkv), alone);
    EXPECT_TRUE(near(part(packed.out), one.out, 2e-6));
    const Tensor grad = attention_backward(part(grad_out), part(qkv), one, alone).grad_qkv;
    EXPECT_TRUE(near(part(packed_grad), grad, 5e-6));
    first += length;
  }
}

TEST(Attention, GradientCheck) {
  const AttentionCase cases[] = {{2, 6, make_args(2, 2, 3)},
                                 {1, 9, make_args(4, 2, 2, MaskKind::causal)},
                                 {1, 9, make_args(2, 1, 4, MaskKind::prefix_causal, 4)},
                                 {2, 6, make_args(2, 2, 3), 2, 3}};
  for (const AttentionCase& c : cases) {
    std::vector<Tensor> inputs{random_attention(c, 5)};
    if (c.grid_h > 0)
      for (const Tensor& table : random_tables(c)) inputs.push_back(table);
    const GradientCheckResult result = check_gradient(
        [&](const std::vector<Variable>& in) {
          return in.size() == 1 ? attention(in[0], c.args) : attention(in[0], c.args, in[1], in[2]);
        },
        inputs);
    EXPECT_TRUE(result.passed) << result.message;
  }
}

TEST(Attention, GradientCheckPacked) {
  AttentionCase c{1, 12, make_args(2, 1, 3, MaskKind::causal)};
  c.args.segment_start = starts({5, 1, 6});
  const GradientCheckResult result =
      check_gradient([&](const std::vector<Variable>& in) { return attention(in[0], c.args); },
                     {random_attention(c, 6)});
  EXPECT_TRUE(result.passed) << result.message;
}

::testing::AssertionResult same_bits(const Tensor& a, const Tensor& b) {
  if (a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0)
    return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "tensors differ";
}

TEST(Attention, SameBitsOnAnyNumberOfThreads) {
  const AttentionCase cases[] = {{3, 196, make_args(2, 2, 12), 14, 14},
                                 {1, 1056, make_args(1, 1, 8), 33, 32},
                                 {1, 700, make_args(4, 2, 8, MaskKind::causal)}};
  const int before = thread_count();
  for (int i = 0; i < 6; ++i) {
    AttentionCase c = cases[i / 2];
    c.args.rounded = i % 2 == 1;
    const Tensor qkv = random_attention(c, 7).to(DType::f32);
    std::vector<Tensor> tables = random_tables(c);
    for (Tensor& t : tables)
      if (t.defined()) t = t.to(DType::f32);
    const Tensor grad_out = random_tensor({c.batch, c.rows, c.args.heads * c.args.head_dim}, 8);
    set_thread_count(1);
    const AttentionResult one = attention_forward(qkv, c.args, tables[0], tables[1]);
    const AttentionGradients grads =
        attention_backward(grad_out, qkv, one, c.args, tables[0], tables[1]);
    for (const int threads : {2, 3, 5, 8}) {
      set_thread_count(threads);
      const AttentionResult many = attention_forward(qkv, c.args, tables[0], tables[1]);
      EXPECT_TRUE(same_bits(one.out, many.out));
      EXPECT_TRUE(same_bits(one.log_sum_exp, many.log_sum_exp));
      const AttentionGradients again =
          attention_backward(grad_out, qkv, many, c.args, tables[0], tables[1]);
      EXPECT_TRUE(same_bits(grads.grad_qkv, again.grad_qkv));
      if (c.grid_h == 0) continue;
      EXPECT_TRUE(same_bits(grads.grad_table_h, again.grad_table_h));
      EXPECT_TRUE(same_bits(grads.grad_table_w, again.grad_table_w));
    }
  }
  set_thread_count(before);
}

TEST(Attention, FrozenInputsAndEmpty) {
  const AttentionCase c{1, 6, make_args(1, 1, 4), 2, 3};
  const std::vector<Tensor> tables = random_tables(c);
  const Variable qkv(random_attention(c, 1)), h(tables[0], true), w(tables[1]);
  attention(qkv, c.args, h, w).backward(random_tensor({1, 6, 4}, 2, DType::f64));
  EXPECT_TRUE(h.grad().defined());
  EXPECT_FALSE(w.grad().defined());
  EXPECT_FALSE(qkv.grad().defined());

  const AttentionArgs args = make_args(2, 2, 4);
  const Tensor none = Tensor::empty({0, 5, 24});
  const AttentionResult result = attention_forward(none, args);
  EXPECT_EQ(result.out.shape(), (Shape{0, 5, 8}));
  EXPECT_EQ(attention_backward(result.out, none, result, args).grad_qkv.shape(), none.shape());
}

TEST(Attention, RoundedProductsAreRounded) {
  AttentionCase c{1, 40, make_args(2, 2, 16)};
  const Tensor qkv = random_attention(c, 1).to(DType::f32);
  const AttentionResult single = attention_forward(qkv, c.args);
  c.args.rounded = true;
  EXPECT_FALSE(same_bits(single.out, attention_forward(qkv, c.args).out));
  {
    const ComputeDType scope(DType::bf16);
    c.args.rounded = false;
    const Tensor out = attention(Variable(qkv), c.args).value();
    c.args.rounded = true;
    EXPECT_TRUE(same_bits(out, attention_forward(qkv, c.args).out)) << "the scope turns it on";
  }
  EXPECT_TRUE(throws_with([&] { attention_forward(qkv.to(DType::f64), c.args); },
                          {"attention: qkv must be f32 when products are rounded", "got f64"}));
}

// Over 60 lines: a case an error.
TEST(Attention, Errors) {
  const Tensor qkv = Tensor::zeros({1, 6, 24});
  const AttentionArgs args = make_args(2, 2, 4);
  const auto with = [&](auto change) {
    AttentionArgs changed = args;
    change(changed);
    return [=] { attention_forward(qkv, changed); };
  };
  EXPECT_TRUE(throws_with(with([](AttentionArgs& a) { a.heads = 3; }),
                          {"attention: heads must be a positive multiple of kv_heads", "heads 3"}));
  EXPECT_TRUE(throws_with(with([](AttentionArgs& a) { a.head_dim = 5; }), {"qkv", "[1, 6, 30]"}));
  EXPECT_TRUE(throws_with(with([](AttentionArgs& a) { a.scale = 0; }), {"scale must be positive"}));
  EXPECT_TRUE(
      throws_with(with([](AttentionArgs& a) { a.scale = NAN; }), {"scale must be positive"}));
  EXPECT_TRUE(throws_with(with([](AttentionArgs& a) {
                            a.mask = MaskKind::prefix_causal;
                            a.prefix = 7;
                          }),
                          {"prefix must be in 0..T=6, got 7"}));
  EXPECT_TRUE(throws_with(with([](AttentionArgs& a) { a.segment_start = starts({6}); }),
                          {"segment_start must come with the causal mask"}));
  const auto segments = [&](std::vector<std::int32_t> values) {
    return with([&](AttentionArgs& a) {
      a.mask = MaskKind::causal;
      const auto n = std::int64_t(values.size());
      a.segment_start = Tensor::from(values, {1, n});
    });
  };
  EXPECT_TRUE(
      throws_with(segments({0, 0, 3, 0, 0, 0}), {"segment_start[0, 2] must be in 0..2, got 3"}));
  EXPECT_TRUE(throws_with(segments({0, 0, -1, 0, 0, 0}), {"segment_start[0, 2]", "got -1"}));
  EXPECT_TRUE(throws_with(segments({0, 0}), {"segment_start must be [1, 6]"}));
  EXPECT_TRUE(throws_with([&] { attention_forward(qkv.to(DType::i32), args); }, {"f32 or f64"}));
  EXPECT_TRUE(throws_with([&] { attention_forward(qkv.view({6, 24}), args); }, {"qkv"}));

  const Tensor h = Tensor::zeros({3, 4}), w = Tensor::zeros({5, 4});
  EXPECT_NO_THROW(attention_forward(qkv, args, h, w));
  EXPECT_TRUE(throws_with([&] { attention_forward(qkv, args, h); }, {"given together"}));
  EXPECT_TRUE(
      throws_with([&] { attention_forward(qkv, args, h, h); }, {"grid_h * grid_w = 2 * 2"}));
  EXPECT_TRUE(throws_with(
      [&] {
        attention_forward(qkv, args, Tensor::zeros({4, 4}), w);
      },
      {"table_h must have 2 grid - 1 rows"}));
  EXPECT_TRUE(throws_with(
      [&] {
        attention_forward(qkv, args, Tensor::zeros({3, 5}), w);
      },
      {"table_h must be [3, 4]"}));
  AttentionArgs causal = args;
  causal.mask = MaskKind::causal;
  EXPECT_TRUE(throws_with([&] { attention_forward(qkv, causal, h, w); }, {"full mask"}));
  const AttentionResult result = attention_forward(qkv, args);
  EXPECT_TRUE(throws_with([&] { attention_backward(qkv, qkv, result, args); }, {"grad_out"}));

  const Tensor q = Tensor::zeros({1, 2, 8}), cache = Tensor::zeros({1, 10, 8});
  EXPECT_NO_THROW(attention_cached(q, cache, cache, args, 8));
  EXPECT_TRUE(throws_with([&] { attention_cached(q, cache, cache, args, 9); },
                          {"past + Tq must be at most Tmax = 10, got 9 + 2"}));
  EXPECT_TRUE(throws_with([&] { attention_cached(q, cache, cache, args, -1); }, {"past"}));
  EXPECT_TRUE(throws_with([&] { attention_cached(q, cache, cache.slice(1, 0, 9), args, 0); },
                          {"value_cache must be [1, 10, 8]"}));
}

}  // namespace
}  // namespace lectern
