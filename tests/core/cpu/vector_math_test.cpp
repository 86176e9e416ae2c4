// core/cpu/vector_math.h against libm in double precision.
#include "core/cpu/vector_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace lectern {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Largest distance, in units in the last place of the float result, over points spread evenly on
/// [low, high]. The loop over an array is the form that kernels use, so the vector code is tested.
template <typename F, typename G>
double worst_ulp(float low, float high, F fast, G exact) {
  constexpr int kPoints = 400000;
  std::vector<float> x(kPoints), y(kPoints);
  for (int i = 0; i < kPoints; ++i) x[i] = low + (high - low) * (float(i) / (kPoints - 1));
  for (int i = 0; i < kPoints; ++i) y[i] = fast(x[i]);
  double worst = 0;
  for (int i = 0; i < kPoints; ++i) {
    const double want = exact(double(x[i]));
    const float rounded = float(want);
    const double unit = std::nextafter(std::fabs(rounded), kInfinity) - std::fabs(rounded);
    const double error = std::fabs(double(y[i]) - want) / unit;
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
constexpr auto exact_exp = [](double x) { return std::exp(x); };
constexpr auto exact_erf = [](double x) { return std::erf(x); };
constexpr auto exact_tanh = [](double x) { return std::tanh(x); };
constexpr auto float_exp = [](float x) { return fast_exp(x); };
constexpr auto float_erf = [](float x) { return fast_erf(x); };
constexpr auto float_tanh = [](float x) { return fast_tanh(x); };
constexpr auto float_sigmoid = [](float x) { return fast_sigmoid(x); };

TEST(VectorMath, ExpWithinTwoUnits) {
  EXPECT_LE(worst_ulp(-1, 1, float_exp, exact_exp), 2.0);
  EXPECT_LE(worst_ulp(-103, 88.7f, float_exp, exact_exp), 2.0);
}

TEST(VectorMath, ErfWithinTwoUnits) {
  EXPECT_LE(worst_ulp(-1e-3f, 1e-3f, float_erf, exact_erf), 2.0);
  EXPECT_LE(worst_ulp(-1.5f, 1.5f, float_erf, exact_erf), 2.0);
  EXPECT_LE(worst_ulp(-6, 6, float_erf, exact_erf), 2.0);
}

TEST(VectorMath, TanhWithinTwoUnits) {
  EXPECT_LE(worst_ulp(-0.01f, 0.01f, float_tanh, exact_tanh), 2.0);
  EXPECT_LE(worst_ulp(-12, 12, float_tanh, exact_tanh), 2.0);
}

TEST(VectorMath, SigmoidWithinThreeUnits) {
  // exp, the sum and the quotient each round once.
  EXPECT_LE(worst_ulp(-85, 30, float_sigmoid, sigmoid), 3.0);
}

TEST(VectorMath, SpecialValues) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(fast_exp(0.0f), 1.0f);
  EXPECT_EQ(fast_exp(-kInfinity), 0.0f);
  EXPECT_EQ(fast_exp(kInfinity), kInfinity);
  EXPECT_EQ(fast_exp(100.0f), kInfinity);
  EXPECT_EQ(fast_exp(-110.0f), 0.0f);
  EXPECT_GT(fast_exp(-100.0f), 0.0f);  // subnormal, as in libm
  EXPECT_TRUE(std::isnan(fast_exp(nan)));
  EXPECT_EQ(fast_erf(kInfinity), 1.0f);
  EXPECT_EQ(fast_erf(-kInfinity), -1.0f);
  EXPECT_EQ(fast_erf(0.0f), 0.0f);
  EXPECT_TRUE(std::isnan(fast_erf(nan)));
  EXPECT_EQ(fast_tanh(kInfinity), 1.0f);
  EXPECT_EQ(fast_tanh(-100.0f), -1.0f);
  EXPECT_TRUE(std::isnan(fast_tanh(nan)));
  EXPECT_EQ(fast_sigmoid(200.0f), 1.0f);
  EXPECT_EQ(fast_sigmoid(-200.0f), 0.0f);
  EXPECT_EQ(fast_sigmoid(0.0f), 0.5f);
}

TEST(VectorMath, DoubleIsFullPrecision) {
  for (double x = -5; x < 5; x += 0.37) {
    EXPECT_DOUBLE_EQ(fast_exp(x), std::exp(x));
    EXPECT_DOUBLE_EQ(fast_erf(x), std::erf(x));
    EXPECT_DOUBLE_EQ(fast_tanh(x), std::tanh(x));
    EXPECT_DOUBLE_EQ(fast_sigmoid(x), sigmoid(x));
  }
}

}  // namespace
}  // namespace lectern
