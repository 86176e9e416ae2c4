// Attention over a cache of keys and values: the rows of one causal pass, whatever of it the cache
// already holds, in every chunking, on every number of threads, and from a bfloat16 cache.
#include "autograd/ops/attention.h"
#include "core/parallel.h"
#include "tests/testing.h"

#include <cmath>

namespace lectern {
namespace {

using testing::near;
using testing::throws_with;

AttentionArgs causal(std::int64_t heads, std::int64_t kv_heads, std::int64_t dim) {
  AttentionArgs args;
  args.heads = heads;
  args.kv_heads = kv_heads;
  args.head_dim = dim;
  args.scale = 1 / std::sqrt(double(dim));
  args.mask = MaskKind::causal;
  return args;
}

/// Two sequences.
struct Case {
  std::int64_t rows = 1;
  AttentionArgs args;
};

Tensor random_qkv(const Case& c, std::uint64_t seed) {
  return testing::random_tensor({2, c.rows, (c.args.heads + 2 * c.args.kv_heads) * c.args.head_dim},
                                seed, DType::f64);
}

TEST(AttentionCached, EqualsCausal) {
  const Case c{150, causal(4, 2, 20)};
  for (const DType dtype : {DType::f64, DType::f32}) {
    const double bound = dtype == DType::f64 ? 1e-13 : 2e-6;
    const Tensor qkv = random_qkv(c, 9).to(dtype);
    const Tensor want = attention_forward(qkv, c.args).out;
    const Tensor q = qkv.slice(2, 0, 80);
    // Caches with room at the end that must not be read.
    const Tensor keys = Tensor::full({2, 200, 40}, NAN, dtype), values = keys.clone();
    keys.slice(1, 0, 150).copy_from(qkv.slice(2, 80, 120));
    values.slice(1, 0, 150).copy_from(qkv.slice(2, 120, 160));
    EXPECT_TRUE(near(attention_cached(q, keys, values, c.args, 0), want, bound));  // prefill
    const std::int64_t splits[][2] = {{0, 1},   {1, 3},    {63, 1},  {64, 1},
                                      {149, 1}, {140, 10}, {50, 100}};
    for (const auto& [past, count] : splits)
      EXPECT_TRUE(near(attention_cached(q.slice(1, past, past + count), keys, values, c.args, past),
                       want.slice(1, past, past + count).contiguous(), bound))
          << past << "+" << count;
  }
}

TEST(AttentionCached, WithOwnLengths) {
  const Case c{40, causal(2, 1, 8)};
  const Tensor qkv = random_qkv(c, 10);
  const Tensor want = attention_forward(qkv, c.args).out;
  const Tensor keys = qkv.slice(2, 16, 24), values = qkv.slice(2, 24, 32);
  for (const std::int64_t count : {1, 12}) {
    const std::vector<std::int32_t> past{5, 28};
    const Tensor q = Tensor::empty({2, count, 16}, DType::f64);
    const Tensor part = Tensor::empty({2, count, 16}, DType::f64);
    for (std::int64_t b = 0; b < 2; ++b) {
      const auto rows = [&](const Tensor& t) {
        return t.slice(0, b, b + 1).slice(1, past[b], past[b] + count);
      };
      q.slice(0, b, b + 1).copy_from(rows(qkv.slice(2, 0, 16)));
      part.slice(0, b, b + 1).copy_from(rows(want));
    }
    EXPECT_TRUE(
        near(attention_cached(q, keys, values, c.args, Tensor::from(past, {2})), part, 1e-13));
  }
}

/// Caches over several chunks of keys, sequences of different length in one batch.
TEST(AttentionCached, InChunks) {
  const Case c{1300, causal(4, 2, 8)};
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor qkv = random_qkv(c, 11).to(dtype);
    const Tensor want = attention_forward(qkv, c.args).out;
    const Tensor keys = qkv.slice(2, 32, 48), values = qkv.slice(2, 48, 64);
    for (const std::vector<std::int32_t>& past :
         {std::vector<std::int32_t>{1298, 3}, {511, 512}, {1023, 1024}}) {
      const Tensor q = Tensor::empty({2, 2, 32}, dtype), part = Tensor::empty({2, 2, 32}, dtype);
      for (std::int64_t b = 0; b < 2; ++b) {
        const auto rows = [&](const Tensor& t) {
          return t.slice(0, b, b + 1).slice(1, past[b], past[b] + 2);
        };
        q.slice(0, b, b + 1).copy_from(rows(qkv.slice(2, 0, 32)));
        part.slice(0, b, b + 1).copy_from(rows(want));
      }
      const auto run = [&] {
        return attention_cached(q, keys, values, c.args, Tensor::from(past, {2}));
      };
      const Tensor got = run();
      EXPECT_TRUE(near(got, part, dtype == DType::f32 ? 2e-6 : 1e-13)) << past[0];
      const int before = thread_count();
      for (const int threads : {1, 5}) {
        set_thread_count(threads);
        EXPECT_TRUE(near(run(), got, 0)) << threads << " threads";
      }
      set_thread_count(before);
    }
  }
}

TEST(AttentionCached, AsBFloat16) {
  const Case c{600, causal(4, 2, 8)};
  const Tensor qkv = random_qkv(c, 12).to(DType::f32);
  const Tensor keys = qkv.slice(2, 32, 48).to(DType::bf16);
  const Tensor values = qkv.slice(2, 48, 64).to(DType::bf16);
  const Tensor wide_keys = keys.to(DType::f32), wide_values = values.to(DType::f32);
  for (const auto& [past, count] : {std::pair{0, 20}, {70, 1}, {598, 2}, {100, 300}}) {
    const Tensor q = qkv.slice(2, 0, 32).slice(1, past, past + count);
    EXPECT_TRUE(near(attention_cached(q, keys, values, c.args, past),
                     attention_cached(q, wide_keys, wide_values, c.args, past), 0))
        << past << "+" << count;
  }
  const Tensor q = qkv.slice(2, 0, 32).slice(1, 0, 1);
  EXPECT_TRUE(throws_with([&] { attention_cached(q, keys, wide_values, c.args, 0); },
                          {"value_cache must be bf16, got f32"}));
  EXPECT_TRUE(throws_with([&] { attention_cached(q.to(DType::f64), keys, values, c.args, 0); },
                          {"key_cache must be f64, got bf16"}));
}

}  // namespace
}  // namespace lectern
