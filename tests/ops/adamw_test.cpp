#include "core/ops/adamw.h"

#include "core/parallel.h"
#include "tests/testing.h"

#include <cmath>
#include <cstring>
#include <vector>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

struct State {
  Tensor value, grad, exp_avg, exp_avg_sq;
};

State random_state(std::int64_t n, std::uint64_t seed, DType dtype) {
  State s = {random_tensor({n}, seed, dtype), random_tensor({n}, seed + 1, dtype),
             random_tensor({n}, seed + 2, dtype), random_tensor({n}, seed + 3, dtype)};
  dispatch_floating(dtype, "test", [&]<typename T>() {
    for (std::int64_t i = 0; i < n; ++i) s.exp_avg_sq.data<T>()[i] *= s.exp_avg_sq.data<T>()[i];
  });
  return s;
}

constexpr AdamWStep kStep = {
    .learning_rate = 0.02, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .gradient_scale = 0.5};

/// The textbook formula with bias-corrected moments, in double.
void reference(State& s, double weight_decay, std::int64_t t) {
  for (std::int64_t i = 0; i < s.value.numel(); ++i) {
    double& p = s.value.data<double>()[i];
    double &m = s.exp_avg.data<double>()[i], &v = s.exp_avg_sq.data<double>()[i];
    const double g = kStep.gradient_scale * s.grad.data<double>()[i];
    p -= kStep.learning_rate * weight_decay * p;
    m = kStep.beta1 * m + (1 - kStep.beta1) * g;
    v = kStep.beta2 * v + (1 - kStep.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(kStep.beta1, t)),
                 v_hat = v / (1 - std::pow(kStep.beta2, t));
    p -= kStep.learning_rate * m_hat / (std::sqrt(v_hat) + kStep.epsilon);
  }
}

TEST(AdamWUpdate, MatchesTheFormulaForManyTensorsAtOnce) {
  const std::vector<std::int64_t> sizes = {0, 1, 31, 70000};  // the last is more than one chunk
  for (const DType dtype : {DType::f32, DType::f64}) {
    std::vector<AdamWParameter> parameters;
    std::vector<State> want;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      const State s = random_state(sizes[i], 10 * i, dtype);
      want.push_back({s.value.to(DType::f64).clone(), s.grad.to(DType::f64),
                      s.exp_avg.to(DType::f64).clone(), s.exp_avg_sq.to(DType::f64).clone()});
      const auto t = static_cast<std::int64_t>(1 + 3 * i);
      parameters.push_back({s.value, s.grad, s.exp_avg, s.exp_avg_sq, 0.1 * double(i), t});
      reference(want.back(), 0.1 * double(i), t);
    }
    const auto version = parameters[1].value.storage()->version();
    adamw_update(parameters, kStep);
    EXPECT_GT(parameters[1].value.storage()->version(), version);
    const double bound = dtype == DType::f32 ? 1e-6 : 1e-14;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      EXPECT_TRUE(near(parameters[i].value, want[i].value, bound));
      EXPECT_TRUE(near(parameters[i].exp_avg, want[i].exp_avg, bound));
      EXPECT_TRUE(near(parameters[i].exp_avg_sq, want[i].exp_avg_sq, bound));
    }
  }
}

TEST(AdamWUpdate, RefusesBadInput) {
  const Tensor a = Tensor::zeros({3}), b = Tensor::zeros({4});
  const auto update = [](const AdamWParameter& p) { adamw_update({&p, 1}, kStep); };
  EXPECT_TRUE(throws_with([&] { update({a, b, a, a, 0, 1}); }, {"adamw: grad must be [3]"}));
  EXPECT_TRUE(throws_with([&] { update({a, a, a, b, 0, 1}); }, {"adamw: exp_avg_sq must be [3]"}));
  EXPECT_TRUE(throws_with(
      [&] {
        update({a, a, a.to(DType::f64), a, 0, 1});
      },
      {"adamw: exp_avg must be f32"}));
  const Tensor half = a.to(DType::bf16);
  EXPECT_TRUE(throws_with(
      [&] {
        update({half, half, half, half, 0, 1});
      },
      {"adamw: value must be f32 or f64", "bf16"}));
}

TEST(SumOfSquares, IsExactAndTheSameForAnyNumberOfThreads) {
  const std::vector<Tensor> tensors = {random_tensor({200000}, 1), Tensor::zeros({0}),
                                       random_tensor({33}, 2, DType::f64)};
  long double want = 0;
  for (const Tensor& tensor : tensors) {
    const Tensor wide = tensor.to(DType::f64);
    for (std::int64_t i = 0; i < wide.numel(); ++i)
      want += static_cast<long double>(wide.data<double>()[i]) * wide.data<double>()[i];
  }
  const int before = thread_count();
  std::vector<double> got;
  for (const int threads : {1, 2, 3}) {
    set_thread_count(threads);
    got.push_back(sum_of_squares(tensors));
  }
  set_thread_count(before);
  EXPECT_NEAR(got[0], static_cast<double>(want), 1e-12 * got[0]);
  EXPECT_EQ(got[0], got[1]);
  EXPECT_EQ(got[0], got[2]);
  EXPECT_EQ(sum_of_squares({}), 0.0);
}

TEST(AllFinite, SeesOneBadElementAnywhere) {
  for (const double bad : {double(NAN), HUGE_VAL, -HUGE_VAL}) {
    for (const std::int64_t at : {0, 16, 99}) {
      const Tensor x = random_tensor({100}, 3);
      EXPECT_TRUE(all_finite(x));
      x.data<float>()[at] = static_cast<float>(bad);
      EXPECT_FALSE(all_finite(x));
    }
  }
  EXPECT_TRUE(all_finite(Tensor::full({4}, 3e38)));
  EXPECT_TRUE(all_finite(Tensor::zeros({0})));
}

}  // namespace
}  // namespace lectern
