#include "core/io/gguf_types.h"

#include "core/convert_math.h"
#include "core/random.h"
#include "tests/testing.h"

#include <array>
#include <cmath>
#include <limits>
#include <vector>

namespace lectern {
namespace {

constexpr std::array kAllTypes = {GgufType::f32, GgufType::f16, GgufType::bf16, GgufType::q8_0,
                                  GgufType::q4_0};

std::vector<std::byte> encoded(GgufType type, const std::vector<float>& values) {
  const auto count = static_cast<std::int64_t>(values.size());
  std::vector<std::byte> out(static_cast<std::size_t>(count / block_values(type)) *
                             block_bytes(type));
  encode_blocks(type, values.data(), count, out.data());
  return out;
}

std::vector<float> decoded(GgufType type, const std::vector<std::byte>& bytes, std::size_t count) {
  std::vector<float> out(count);
  decode_blocks(type, bytes.data(), static_cast<std::int64_t>(count), out.data());
  return out;
}

/// Blocks of many magnitudes, signs and spreads, zeros and ties among them.
std::vector<float> varied(std::int64_t blocks) {
  Random random(7, "blocks");
  std::vector<float> out;
  for (std::int64_t b = 0; b < blocks; ++b) {
    const double scale = std::pow(10.0, 12.0 * random.uniform() - 9.0);
    for (int i = 0; i < 32; ++i)
      out.push_back(static_cast<float>(b % 5 == 0 ? scale * std::round(4 * random.normal())
                                                  : scale * random.normal()));
  }
  std::fill_n(out.begin(), 32, 0.0F);
  return out;
}

TEST(GgufTypes, HalvesAreRoundedToTheNearestAndTiesToEven) {
  using convert_math::half_bits;
  using convert_math::half_to_f32;
  for (std::uint32_t half = 0; half < 0x10000; ++half) {
    const auto bits = static_cast<std::uint16_t>(half);
    const float value = half_to_f32(bits);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(half_to_f32(half_bits(value))));
      continue;
    }
    ASSERT_EQ(half_bits(value), bits) << value;
    if (half >= 0x7c00 || half + 1 > 0x7bff) continue;
    // Between two neighbours: the middle goes to the even one, a little off it to the nearer one.
    const float next = half_to_f32(static_cast<std::uint16_t>(half + 1));
    const float middle = value + (next - value) / 2;
    const auto even = static_cast<std::uint16_t>(half % 2 == 0 ? half : half + 1);
    ASSERT_EQ(half_bits(middle), even) << middle;
    ASSERT_EQ(half_bits(std::nextafter(middle, 0.0F)), half);
    ASSERT_EQ(half_bits(std::nextafter(middle, 1e9F)), half + 1);
    ASSERT_EQ(half_bits(-middle), even | 0x8000);
  }
  EXPECT_EQ(half_bits(65519.996F), 0x7bff);
  EXPECT_EQ(half_bits(65520.0F), 0x7c00);
  EXPECT_EQ(half_bits(-std::numeric_limits<float>::infinity()), 0xfc00);
}

TEST(GgufTypes, BlocksHaveTheBytesThatTheirFormulasSay) {
  // d = 2 (half 0x4000) in both: 254 / 127 and -16 / -8.
  std::vector<float> values(32, 0.0F);
  values[0] = 254;
  values[1] = -3;  // -1.5 goes away from zero
  values[31] = 2;
  std::vector<std::byte> want(34, std::byte{0});
  want[1] = std::byte{0x40};
  want[2] = std::byte{127};
  want[3] = std::byte{0xfe};
  want[33] = std::byte{1};
  EXPECT_EQ(encoded(GgufType::q8_0, values), want);

  values.assign(32, 0.0F);
  values[0] = -16;    // code 0
  values[1] = 16;     // 8 + 8 is cut to 15
  values[16] = -5;    // 8 - 2.5 + 0.5 = 6
  values[17] = 3.1F;  // 8 + 1.55 + 0.5 -> 10
  want.assign(18, std::byte{0x88});
  want[0] = std::byte{0};
  want[1] = std::byte{0x40};
  want[2] = std::byte{0x60};
  want[3] = std::byte{0xaf};
  EXPECT_EQ(encoded(GgufType::q4_0, values), want);
}

TEST(GgufTypes, DecodedValuesLieWithinTheBound) {
  const std::vector<float> values = varied(4000);
  for (const GgufType type : kAllTypes) {
    const auto got = decoded(type, encoded(type, values), values.size());
    double tightest = 0;  // the largest part of a bound that is used
    for (std::size_t i = 0; i < values.size(); i += 32) {
      float largest = 0;
      for (std::size_t j = i; j < i + 32; ++j) largest = std::max(largest, std::abs(values[j]));
      for (std::size_t j = i; j < i + 32; ++j) {
        const double bound = error_bound(type, values[j], largest);
        const double off = std::abs(static_cast<double>(got[j]) - values[j]);
        ASSERT_LE(off, bound) << name_of(type) << " " << values[j] << " in " << largest;
        if (bound > 0) tightest = std::max(tightest, off / bound);
      }
    }
    EXPECT_TRUE(type == GgufType::f32 || tightest > 0.9) << name_of(type) << " " << tightest;
  }
}

TEST(GgufTypes, WhatATypeCannotHoldIsFound) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float value : {kNan, kInfinity, -kInfinity}) {
    std::vector<float> values(32, 1.0F);
    values[20] = value;
    EXPECT_TRUE(may_hold(GgufType::f32, values.data(), 32));
    for (const GgufType type : {GgufType::f16, GgufType::bf16, GgufType::q8_0, GgufType::q4_0})
      EXPECT_FALSE(may_hold(type, values.data(), 32)) << name_of(type) << " " << value;
  }
  const auto largest = [](GgufType type, float value) {
    std::vector<float> values(32, 0.0F);
    values[3] = -value;
    const auto got = decoded(type, encoded(type, values), 32);
    EXPECT_EQ(may_hold(type, values.data(), 32), std::isfinite(got[3]))
        << name_of(type) << " " << value << " " << got[3];
    return may_hold(type, values.data(), 32);
  };
  EXPECT_TRUE(largest(GgufType::f16, 65519));
  EXPECT_FALSE(largest(GgufType::f16, 65520));
  EXPECT_TRUE(largest(GgufType::q8_0, 127 * 65519.0F));
  EXPECT_FALSE(largest(GgufType::q8_0, 127 * 65521.0F));
  EXPECT_TRUE(largest(GgufType::q4_0, 8 * 65519.0F));
  EXPECT_FALSE(largest(GgufType::q4_0, 8 * 65520.0F));
  EXPECT_TRUE(largest(GgufType::bf16, 0x1.fep127F));
  EXPECT_FALSE(largest(GgufType::bf16, 0x1.ffp127F));
}

TEST(GgufTypes, ScalesTooSmallForAHalfGiveZeros) {
  for (const float tiny : {1e-10F, 1e-30F, 1e-38F, 1e-45F})
    for (const GgufType type : {GgufType::q8_0, GgufType::q4_0}) {
      const std::vector<float> values(32, tiny);
      for (const float value : decoded(type, encoded(type, values), 32)) EXPECT_EQ(value, 0.0F);
    }
}

TEST(GgufTypes, NamesAndNumbersLeadBack) {
  for (const GgufType type : kAllTypes) {
    EXPECT_EQ(gguf_type_of(name_of(type)), type);
    EXPECT_EQ(gguf_type_of(static_cast<std::uint32_t>(type)), type);
  }
  EXPECT_EQ(gguf_type_of("q5_0"), std::nullopt);
  EXPECT_EQ(gguf_type_of(3), std::nullopt);
}

}  // namespace
}  // namespace lectern
