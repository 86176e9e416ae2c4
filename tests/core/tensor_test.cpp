#include "core/tensor.h"

#include "tests/testing.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace lectern {
namespace {

using testing::throws_with;

/// 0, 1, 2, ... in row-major order.
Tensor counting(const Shape& shape) {
  Tensor out = Tensor::empty(shape, DType::i64);
  std::iota(out.data<std::int64_t>(), out.data<std::int64_t>() + out.numel(), 0);
  return out;
}

std::vector<std::int64_t> values(const Tensor& tensor) {
  const Tensor flat = tensor.contiguous();
  return {flat.data<std::int64_t>(), flat.data<std::int64_t>() + flat.numel()};
}

using Values = std::vector<std::int64_t>;

TEST(Tensor, ShapeStridesAndNames) {
  const Tensor t = Tensor::zeros({2, 3, 4}, DType::bf16);
  EXPECT_EQ(t.ndim(), 3);
  EXPECT_EQ(t.numel(), 24);
  EXPECT_EQ(t.bytes(), 48u);
  EXPECT_EQ(t.dim(-1), 4);
  EXPECT_EQ(t.stride(0), 12);
  EXPECT_EQ(t.describe(), "bf16 [2, 3, 4] cpu");
  EXPECT_EQ(Tensor().describe(), "undefined");
  EXPECT_FALSE(Tensor().defined());
  EXPECT_EQ(Tensor::full({}, 2.5).item(), 2.5);
}

TEST(Tensor, ViewsShareMemory) {
  const Tensor t = counting({2, 6});
  const Tensor view = t.view({3, -1}), row = t.slice(0, 1, 2);
  EXPECT_EQ(view.shape(), (Shape{3, 4}));
  view.data<std::int64_t>()[7] = 70;
  EXPECT_EQ(values(row), (Values{6, 70, 8, 9, 10, 11}));
  EXPECT_FALSE(t.is_unique());
  EXPECT_EQ(row.offset(), 6);
}

TEST(Tensor, PermuteTransposeSlice) {
  const Tensor t = counting({2, 3, 2});
  EXPECT_EQ(values(t.permute({2, 0, 1})), (Values{0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11}));
  EXPECT_EQ(values(t.transpose(0, -1)), (Values{0, 6, 2, 8, 4, 10, 1, 7, 3, 9, 5, 11}));
  EXPECT_EQ(values(t.slice(1, 1, 3).slice(2, 0, 1)), (Values{2, 4, 8, 10}));
  EXPECT_EQ(values(t.slice(-1, 1, 2)), (Values{1, 3, 5, 7, 9, 11}));
  EXPECT_FALSE(t.transpose(0, 1).is_contiguous());
  EXPECT_TRUE(t.transpose(0, 1).contiguous().is_contiguous());
  // A dimension of one element may stand anywhere.
  EXPECT_TRUE(counting({4, 1, 3}).permute({1, 0, 2}).is_contiguous());
}

TEST(Tensor, CopiesBetweenLayouts) {
  const Tensor from = counting({3, 4}), to = Tensor::zeros({4, 3}, DType::i64);
  to.transpose(0, 1).copy_from(from);
  EXPECT_EQ(values(to), values(from.transpose(0, 1)));
  const Tensor clone = from.clone();
  clone.fill(7);
  EXPECT_EQ(values(from)[5], 5);
  const Tensor part = counting({3, 3});
  part.slice(1, 0, 2).fill(-1);
  EXPECT_EQ(values(part), (Values{-1, -1, 2, -1, -1, 5, -1, -1, 8}));
  EXPECT_EQ(from.contiguous().raw(), from.raw()) << "a contiguous tensor must not be copied";
}

TEST(Tensor, ConvertsDTypes) {
  const Tensor t = Tensor::from(std::vector<float>{1.5F, -2.25F, 300.0F}, {3});
  EXPECT_EQ(t.to(DType::f64).data<double>()[1], -2.25);
  EXPECT_EQ(t.to(DType::i32).data<std::int32_t>()[2], 300);
  EXPECT_EQ(static_cast<float>(t.to(DType::bf16).data<BFloat16>()[1]), -2.25F);
  EXPECT_EQ(t.to(DType::f32).raw(), t.raw());
  const Tensor strided = counting({2, 3}).transpose(0, 1).to(DType::f32);
  EXPECT_TRUE(strided.is_contiguous());
  EXPECT_EQ(strided.data<float>()[1], 3.0F);
}

TEST(BFloat16, RoundsToNearestEven) {
  const auto bits = [](float value) { return BFloat16(value).bits; };
  EXPECT_EQ(bits(1.0F), 0x3f80);
  // 1 + 2^-8 lies halfway between 1 and 1 + 2^-7: the even one is 1. 1 + 3 2^-8: 1 + 2^-6.
  EXPECT_EQ(bits(1.0F + 0x1p-8F), 0x3f80);
  EXPECT_EQ(bits(1.0F + 0x1p-8F + 0x1p-20F), 0x3f81);
  EXPECT_EQ(bits(1.0F + 3 * 0x1p-8F), 0x3f82);
  EXPECT_EQ(bits(-1.0F), 0xbf80);
  EXPECT_EQ(bits(std::numeric_limits<float>::infinity()), 0x7f80);
  EXPECT_EQ(bits(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(std::nanf("")))));
}

TEST(Tensor, EmptyTensors) {
  const Tensor t = Tensor::zeros({2, 0, 3});
  EXPECT_EQ(t.numel(), 0);
  EXPECT_TRUE(t.is_contiguous());
  EXPECT_TRUE(t.transpose(0, 2).is_contiguous());
  EXPECT_EQ(t.clone().shape(), t.shape());
  EXPECT_EQ(t.view({0, 5}).shape(), (Shape{0, 5}));
  t.fill(1);
  // Absurd sizes beside a zero are an empty tensor, not an overflow.
  const std::int64_t huge = std::int64_t{1} << 62;
  EXPECT_EQ(Tensor::empty({0, huge, huge}).numel(), 0);
}

TEST(Tensor, WrapRefersToForeignMemory) {
  std::vector<float> memory{1, 2, 3, 4};
  auto owner = std::make_shared<int>(0);
  {
    const Tensor t = Tensor::wrap(memory.data(), {2, 2}, DType::f32, owner);
    EXPECT_EQ(t.raw(), memory.data());
    EXPECT_EQ(owner.use_count(), 2);
    t.data<float>()[3] = 9;
  }
  EXPECT_EQ(owner.use_count(), 1);
  EXPECT_EQ(memory[3], 9);
  // Without an owner the caller keeps the memory; freeing it here would end in the allocator.
  Tensor::wrap(memory.data(), {4}, DType::f32, nullptr);
  EXPECT_NE(Tensor::empty({4}).raw(), memory.data());
}

TEST(Storage, VersionAndAttachments) {
  const Tensor t = Tensor::zeros({4}), part = t.slice(0, 1, 2);
  const auto before = t.storage()->version();
  part.mark_modified();
  EXPECT_EQ(t.storage()->version(), before + 1);
  EXPECT_EQ(t.storage()->attachment("cache"), nullptr);
  auto value = std::make_shared<int>(5);
  t.storage()->attach("cache", value);
  EXPECT_EQ(part.storage()->attachment("cache"), value);
  t.storage()->attach("cache", nullptr);
  EXPECT_EQ(value.use_count(), 1);
}

TEST(Tensor, Errors) {
  const Tensor t = counting({2, 3});
  EXPECT_TRUE(throws_with([&] { t.view({4, -1}); }, {"view:", "[4, -1]", "6 elements"}));
  EXPECT_TRUE(throws_with([&] { t.view({-2, -3}); }, {"view:", "[-2, -3]"}));
  EXPECT_TRUE(throws_with([&] { Tensor::zeros({0, 3}).view({-1, 0}); }, {"view:"}));
  EXPECT_TRUE(throws_with([&] { t.transpose(0, 1).view({6}); }, {"view: tensor must be contig"}));
  EXPECT_TRUE(throws_with([&] { t.slice(0, 1, 3); }, {"slice: 1..3 of dimension 0"}));
  EXPECT_TRUE(throws_with([&] { t.slice(0, 2, 1); }, {"slice: 2..1"}));
  EXPECT_TRUE(throws_with([&] { t.slice(2, 0, 1); }, {"dimension 2 is out of range"}));
  EXPECT_TRUE(throws_with([&] { t.permute({0, 0}); }, {"permute:"}));
  EXPECT_TRUE(throws_with([&] { t.permute({0}); }, {"permute:"}));
  EXPECT_TRUE(throws_with([&] { t.transpose(0, 2); }, {"transpose: dimensions 0 and 2"}));
  EXPECT_TRUE(throws_with([&] { t.data<float>(); }, {"data: tensor must be f32, got i64 [2, 3]"}));
  EXPECT_TRUE(throws_with([&] { t.item(); }, {"item: tensor must have one element"}));
  EXPECT_TRUE(throws_with([&] { t.copy_from(counting({3, 2})); }, {"copy_from:", "[3, 2]"}));
  EXPECT_TRUE(throws_with([&] { Tensor::zeros({2, -1}); }, {"sizes must be 0 or more", "[2, -1]"}));
  EXPECT_TRUE(throws_with(
      [&] {
        Tensor::from(std::vector<float>{1, 2}, {3});
      },
      {"[3] needs 3 values, got 2"}));
  EXPECT_TRUE(throws_with(
      [&] {
        Tensor::empty({1, 1, 1, 1, 1, 1, 1, 1, 1});
      },
      {"at most 8 dimensions"}));
  const std::int64_t huge = std::int64_t{1} << 40;
  EXPECT_TRUE(throws_with([&] { Tensor::empty({huge, huge}); }, {"does not fit in memory"}));
  EXPECT_TRUE(throws_with([&] { Tensor::empty({huge, 1 << 20}); }, {"allocator: cannot get"}));
  EXPECT_TRUE(throws_with(
      [&] {
        Tensor::zeros({2}, DType::f32, {DeviceType::cuda, 0});
      },
      {"cuda"}));
}

TEST(Tensor, Checks) {
  const Tensor t = Tensor::zeros({2, 3});
  EXPECT_TRUE(throws_with(
      [&] {
        check_shape(t, {2, 4}, "op", "x");
      },
      {"op: x must be [2, 4], got f32 [2, 3] cpu"}));
  EXPECT_TRUE(throws_with([&] { check_ndim(Tensor(), 2, "op", "x"); },
                          {"op: x must have 2 dimensions, got undefined"}));
  EXPECT_TRUE(
      throws_with([&] { check_dtype(t, DType::f64, "op", "x"); }, {"op: x must be f64, got f32"}));
  EXPECT_TRUE(throws_with([&] { check_contiguous(t.transpose(0, 1), "op", "x"); },
                          {"op: x must be contiguous"}));
}

}  // namespace
}  // namespace lectern
