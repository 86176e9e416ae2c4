#include "core/ops/convert.h"

#include "core/parallel.h"
#include "tests/testing.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace lectern {
namespace {

using testing::random_tensor;
using testing::throws_with;

/// The definition: of the two neighbours of x in bfloat16 the nearer, of two equally near the one
/// whose last bit is 0.
float nearest(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const double low = std::bit_cast<float>(bits & 0xffff0000u);
  const float up_value = std::bit_cast<float>((bits & 0xffff0000u) + 0x10000u);
  const double up = std::isinf(up_value) ? std::copysign(std::ldexp(1.0, 128), x) : up_value;
  const double to_low = std::abs(x - low), to_up = std::abs(up - x);
  if (to_low != to_up) return to_low < to_up ? static_cast<float>(low) : up_value;
  return (bits >> 16 & 1u) == 0 ? static_cast<float>(low) : up_value;
}

TEST(Convert, RoundsToNearestEven) {
  std::vector<float> values = {0.0F,        -0.0F,         1.0F,          1.00390625F,
                               1.01171875F, 3.3895314e38F, 3.4028235e38F, -3.4028235e38F,
                               1e-40F,      1.1754944e-38F};
  for (int sign = 0; sign < 2; ++sign)
    for (std::uint32_t step = 0; step < 70000; ++step)
      values.push_back((sign == 0 ? 1.0F : -1.0F) *
                       std::bit_cast<float>(0x3f800000u + step * 1237u));
  const Tensor x = Tensor::from(values, {static_cast<std::int64_t>(values.size())});
  const Tensor narrow = convert(x, DType::bf16);
  const Tensor back = convert(narrow, DType::f32);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float want = nearest(values[i]);
    ASSERT_EQ(back.data<float>()[i], want) << "of " << values[i] << " at " << i;
    ASSERT_EQ(narrow.data<BFloat16>()[i].bits, BFloat16(values[i]).bits);
  }
}

TEST(Convert, InfinityAndNaN) {
  const float infinity = std::numeric_limits<float>::infinity();
  const Tensor x = Tensor::from(
      std::vector<float>{infinity, -infinity, std::numeric_limits<float>::quiet_NaN(),
                         std::bit_cast<float>(0x7f800001u), std::bit_cast<float>(0xffffffffu)},
      {5});
  const Tensor y = convert(convert(x, DType::bf16), DType::f32);
  EXPECT_EQ(y.data<float>()[0], infinity);
  EXPECT_EQ(y.data<float>()[1], -infinity);
  for (int i = 2; i < 5; ++i) EXPECT_TRUE(std::isnan(y.data<float>()[i])) << i;
}

TEST(Convert, ShapesAndStrides) {
  const Tensor x = random_tensor({3, 5}, 1);
  const Tensor turned = convert(x.transpose(0, 1), DType::bf16);
  EXPECT_EQ(turned.shape(), (Shape{5, 3}));
  EXPECT_EQ(turned.data<BFloat16>()[1].bits, BFloat16(x.data<float>()[5]).bits);
  EXPECT_EQ(convert(Tensor::zeros({0, 4}), DType::bf16).shape(), (Shape{0, 4}));
  EXPECT_EQ(convert(x, DType::f32).raw(), x.raw()) << "nothing to do: no copy";
}

TEST(Convert, SameBitsForAnyNumberOfThreads) {
  const int before = thread_count();
  const Tensor x = random_tensor({1 << 18}, 2);
  set_thread_count(1);
  const Tensor want = convert(x, DType::bf16);
  set_thread_count(3);
  const Tensor got = convert(x, DType::bf16);
  set_thread_count(before);
  EXPECT_EQ(std::memcmp(got.raw(), want.raw(), want.bytes()), 0);
}

TEST(Convert, CopyOfAWeightFollowsItsVersion) {
  const std::size_t before = bf16_copy_bytes();
  {
    const Tensor weight = random_tensor({7, 9}, 3);
    const Tensor first = bf16_copy_of(weight);
    EXPECT_EQ(first.shape(), weight.shape());
    EXPECT_EQ(bf16_copy_of(weight).raw(), first.raw()) << "one copy a version";
    EXPECT_EQ(bf16_copy_bytes(), before + first.bytes());
    const BFloat16 old = first.data<BFloat16>()[0];
    weight.fill(0.5);
    weight.mark_modified();
    const Tensor second = bf16_copy_of(weight);
    EXPECT_EQ(static_cast<float>(second.data<BFloat16>()[62]), 0.5F);
    EXPECT_EQ(first.data<BFloat16>()[0].bits, old.bits) << "somebody still reads the old copy";
  }
  EXPECT_EQ(bf16_copy_bytes(), before) << "the copy must go with its weight";
  const Tensor weight = random_tensor({64}, 3);
  const void* place = bf16_copy_of(weight).raw();
  weight.fill(2);
  weight.mark_modified();
  const Tensor again = bf16_copy_of(weight);
  EXPECT_EQ(again.raw(), place) << "nobody reads the old copy: its memory is used again";
  EXPECT_EQ(static_cast<float>(again.data<BFloat16>()[63]), 2.0F);
}

TEST(Convert, Errors) {
  EXPECT_TRUE(throws_with([] { convert(Tensor::zeros({2}, DType::f64), DType::bf16); },
                          {"convert: x must be f32 or bf16, got f64 [2]"}));
  EXPECT_TRUE(throws_with([] { convert(Tensor::zeros({2}), DType::i32); },
                          {"convert: dtype must be f32 or bf16, got i32"}));
  EXPECT_TRUE(throws_with([] { convert(Tensor(), DType::bf16); },
                          {"convert: x must be f32 or bf16, got undefined"}));
  EXPECT_TRUE(throws_with(
      [] {
        bf16_copy_of(Tensor::zeros({2, 3}).transpose(0, 1));
      },
      {"bf16_copy_of: weight must be contiguous"}));
}

}  // namespace
}  // namespace lectern
