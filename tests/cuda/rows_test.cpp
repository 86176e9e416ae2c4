// Operations that move rows: select_rows, layout, rope, window, patchify, interpolate.
#include "core/ops/rows.h"

#include "core/ops/interpolate.h"
#include "core/ops/layout.h"
#include "core/ops/patchify.h"
#include "core/ops/rope.h"
#include "core/ops/window.h"
#include "tests/cuda/check_cuda.h"

namespace lectern {
namespace {

using testing::Both;
using testing::both;
using testing::gpu;
using testing::is_equal;
using testing::kStorageTypes;
using testing::matches;
using testing::random_both;
using testing::throws_with;

Tensor ids(std::initializer_list<std::int32_t> values, const Shape& shape) {
  return Tensor::from(std::vector<std::int32_t>(values), shape);
}

TEST(CudaRows, SelectsFromSeveralSources) {
  for (const DType dtype : kStorageTypes)
    for (const std::int64_t columns : {1, 5, 16, 136}) {
      const Both a = random_both({4, columns}, 1, dtype), b = random_both({2, columns}, 2, dtype);
      const Tensor index = ids({0, 3, 1, 1, 0, 0, 1, 0, 0, 3}, {5, 2});
      const Tensor got = select_rows({a.cuda, b.cuda}, index);
      EXPECT_TRUE(matches(got, select_rows({a.cpu, b.cpu}, index), dtype));
      const Both grad = random_both({5, columns}, 3, dtype);
      for (const std::int32_t source : {0, 1})
        EXPECT_TRUE(matches(select_rows_backward(grad.cuda, index, source, source == 0 ? 4 : 2),
                            select_rows_backward(grad.cpu, index, source, source == 0 ? 4 : 2),
                            dtype, 2));
    }
  const Both a = random_both({4, 3}, 1);
  EXPECT_EQ(select_rows({a.cuda}, Tensor::empty({0, 2}, DType::i32)).numel(), 0);
  EXPECT_TRUE(throws_with(
      [&] {
        select_rows({a.cuda, a.cpu}, ids({0, 0}, {1, 2}));
      },
      {"source 1 must be on cuda:0"}));
  EXPECT_TRUE(throws_with(
      [&] {
        select_rows({a.cuda}, ids({0, 0}, {1, 2}).to(gpu()));
      },
      {"index must be on the CPU"}));
}

TEST(CudaRows, ARowThatStandsEverywhereIsAddedInParts) {
  std::vector<std::int32_t> index;
  for (std::int32_t i = 0; i < 300; ++i) {
    index.push_back(0);
    index.push_back(i % 3 == 0 ? i % 7 : 5);
  }
  const Tensor at = Tensor::from(index, {300, 2});
  for (const DType dtype : kStorageTypes) {
    const Both grad = random_both({300, 24}, 4, dtype);
    EXPECT_TRUE(matches(select_rows_backward(grad.cuda, at, 0, 9),
                        select_rows_backward(grad.cpu, at, 0, 9), dtype, 30));
  }
}

TEST(CudaLayout, CopiesMatchTheCpu) {
  for (const DType dtype : kStorageTypes)
    for (const std::int64_t columns : {1, 3, 8, 40}) {
      const Both x = random_both({3, 5, columns}, 1, dtype),
                 y = random_both({3, 2, columns}, 2, dtype);
      EXPECT_TRUE(matches(slice(x.cuda, 1, 1, 4), slice(x.cpu, 1, 1, 4), dtype));
      EXPECT_TRUE(matches(slice(x.cuda, -1, 0, 1), slice(x.cpu, -1, 0, 1), dtype));
      EXPECT_TRUE(matches(concat({x.cuda, y.cuda}, 1), concat({x.cpu, y.cpu}, 1), dtype));
      EXPECT_TRUE(matches(repeat_leading(x.cuda, 3), repeat_leading(x.cpu, 3), dtype));
      EXPECT_TRUE(matches(pad_slice(y.cuda, {3, 6, columns}, 1, 3),
                          pad_slice(y.cpu, {3, 6, columns}, 1, 3), dtype));
      const int turned[] = {2, 0, 1}, swapped[] = {1, 0, 2};
      EXPECT_TRUE(matches(permute(x.cuda, turned), permute(x.cpu, turned), dtype));
      EXPECT_TRUE(matches(permute(x.cuda, swapped), permute(x.cpu, swapped), dtype));
    }
}

TEST(CudaRope, MatchesTheCpu) {
  for (const DType dtype : kStorageTypes)
    for (const std::int64_t head_dim : {2, 6, 16, 64}) {
      RopeArgs args{.heads = 3, .kv_heads = 1, .head_dim = head_dim, .theta = 10000.0, .offset = 5};
      const Both qkv = random_both({2, 7, 5 * head_dim}, 1, dtype);
      EXPECT_TRUE(matches(rope(qkv.cuda, args), rope(qkv.cpu, args), dtype, 4)) << head_dim;
      args.offset = 0;
      std::vector<std::int32_t> positions;
      for (std::int32_t i = 0; i < 14; ++i) positions.push_back(i * 37 % 4000);
      args.positions = Tensor::from(positions, {2, 7});
      EXPECT_TRUE(matches(rope(qkv.cuda, args), rope(qkv.cpu, args), dtype, 4));
      EXPECT_TRUE(matches(rope_backward(qkv.cuda, args), rope_backward(qkv.cpu, args), dtype, 4));
      const Tensor want = rope(qkv.cpu, args);
      rope_in_place(qkv.cuda, args);
      EXPECT_TRUE(matches(qkv.cuda, want, dtype, 4));
    }
}

TEST(CudaWindow, MatchesTheCpu) {
  for (const DType dtype : kStorageTypes)
    for (const auto& [shape, window] :
         std::vector<std::pair<Shape, std::int64_t>>{{{1, 1, 1, 1}, 3},
                                                     {{2, 5, 7, 3}, 3},
                                                     {{1, 4, 4, 16}, 2},
                                                     {{2, 3, 9, 8}, 4},
                                                     {{0, 2, 2, 8}, 2}}) {
      SCOPED_TRACE(fmt::format("{} {} {}", name_of(dtype), shape, window));
      const Both x = random_both(shape, 1, dtype);
      const Tensor got = window_partition(x.cuda, window), want = window_partition(x.cpu, window);
      EXPECT_TRUE(matches(got, want, dtype));
      EXPECT_TRUE(matches(window_merge(got, window, shape[0], shape[1], shape[2]), x.cpu, dtype));
    }
}

TEST(CudaPatchify, MatchesTheCpuAndInverts) {
  for (const DType dtype : kStorageTypes)
    for (const int patch : {1, 3, 8, 16}) {
      const Both x = random_both({2, 3, 2 * patch, 3 * patch}, 1, dtype);
      const Tensor got = patchify(x.cuda, patch);
      EXPECT_TRUE(matches(got, patchify(x.cpu, patch), dtype));
      EXPECT_TRUE(is_equal(unpatchify(got, patch), x.cuda));
    }
}

TEST(CudaInterpolate, MatchesTheCpu) {
  for (const DType dtype : kStorageTypes)
    for (const auto& [from, to] :
         std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 4}, {7, 3}, {6, 11}}) {
      const Both x = random_both({2, from, 5}, 1, dtype);
      for (const auto& weights : {bicubic_weights(from, to), linear_weights(from, to)})
        EXPECT_TRUE(matches(resample(x.cuda, 1, weights), resample(x.cpu, 1, weights), dtype, 8));
      const auto turned = transpose(bicubic_weights(from, to));
      const Both grad = random_both({2, to, 5}, 2, dtype);
      EXPECT_TRUE(matches(resample(grad.cuda, 1, turned), resample(grad.cpu, 1, turned), dtype, 8));
    }
}

}  // namespace
}  // namespace lectern
