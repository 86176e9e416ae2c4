#include "autograd/ops/experts.h"

#include "autograd/gradient_check.h"
#include "core/ops/experts.h"
#include "core/parallel.h"
#include "core/random.h"
#include "tests/testing.h"

#include <cmath>
#include <cstring>
#include <vector>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

struct Sizes {
  std::int64_t tokens, width, inner, experts, top_k;
};

Tensor random_indices(const Sizes& s, std::uint64_t seed) {
  Random random(seed, "indices");
  Tensor out = Tensor::empty({s.tokens, s.top_k}, DType::i32);
  for (std::int64_t i = 0; i < out.numel(); ++i)
    out.data<std::int32_t>()[i] =
        static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(s.experts)));
  return out;
}

ExpertsInput random_input(const Sizes& s, DType dtype) {
  return {random_tensor({s.tokens, s.width}, 1, dtype),
          random_tensor({s.tokens, s.top_k}, 2, dtype), random_indices(s, 3),
          random_tensor({s.experts, 2 * s.inner, s.width}, 4, dtype, 0.3),
          random_tensor({s.experts, s.width, s.inner}, 5, dtype, 0.3)};
}

ExpertsInput with_bf16_operands(const ExpertsInput& in) {
  return {in.x.to(DType::bf16), in.weights, in.indices, in.gate_up.to(DType::bf16),
          in.down.to(DType::bf16)};
}

ExpertsInput to_double(const ExpertsInput& in) {
  return {in.x.to(DType::f64), in.weights.to(DType::f64), in.indices, in.gate_up.to(DType::f64),
          in.down.to(DType::f64)};
}

/// Token by token, choice by choice, in double.
Tensor reference(const ExpertsInput& input) {
  const ExpertsInput in = to_double(input);
  const std::int64_t tokens = in.x.dim(0), width = in.x.dim(1), inner = in.down.dim(2);
  const std::int64_t top_k = in.indices.dim(1);
  Tensor out = Tensor::zeros({tokens, width}, DType::f64);
  for (std::int64_t n = 0; n < tokens; ++n) {
    for (std::int64_t k = 0; k < top_k; ++k) {
      const std::int64_t e = in.indices.data<std::int32_t>()[n * top_k + k];
      const double* gate_up = in.gate_up.data<double>() + e * 2 * inner * width;
      const double* down = in.down.data<double>() + e * width * inner;
      const double* x = in.x.data<double>() + n * width;
      for (std::int64_t i = 0; i < inner; ++i) {
        double gate = 0, up = 0;
        for (std::int64_t c = 0; c < width; ++c) {
          gate += gate_up[i * width + c] * x[c];
          up += gate_up[(inner + i) * width + c] * x[c];
        }
        const double h = gate / (1 + std::exp(-gate)) * up;
        for (std::int64_t c = 0; c < width; ++c)
          out.data<double>()[n * width + c] +=
              in.weights.data<double>()[n * top_k + k] * down[c * inner + i] * h;
      }
    }
  }
  return out;
}

const std::vector<Sizes> kShapes = {{0, 4, 3, 5, 2}, {1, 1, 1, 1, 1},    {1, 32, 8, 16, 4},
                                    {7, 5, 3, 4, 2}, {3, 6, 5, 9, 3},    {40, 33, 17, 3, 2},
                                    {5, 8, 4, 6, 0}, {130, 64, 48, 8, 4}};

/// Experts with up to eight rows are exact, others round their rows to bf16.
TEST(Experts, BFloat16Weights) {
  for (const Sizes& s : kShapes) {
    ExpertsInput in = random_input(s, DType::f32);
    in.gate_up = in.gate_up.to(DType::bf16);
    in.down = in.down.to(DType::bf16);
    const bool is_exact = s.tokens * s.top_k <= 8;
    EXPECT_TRUE(near(experts_forward(in, false).out, reference(in), is_exact ? 1e-5 : 1e-2))
        << s.tokens << " tokens";
  }
  ExpertsInput in = random_input({7, 5, 3, 4, 2}, DType::f32);
  in.gate_up = in.gate_up.to(DType::bf16);
  EXPECT_TRUE(throws_with([&] { experts_forward(in, false); }, {"down must be bf16, got f32"}));
  in.down = in.down.to(DType::bf16);
  const ExpertsResult result = experts_forward(in, true);
  EXPECT_TRUE(throws_with([&] { experts_backward(result.out, in, result, {}); },
                          {"experts_backward: gate_up must be f32, got bf16"}));
}

TEST(Experts, MatchesTheLoopOverTokens) {
  for (const Sizes& s : kShapes) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      const ExpertsInput in = random_input(s, dtype);
      const Tensor want = reference(in);
      // f32: sums of `width` products of size ~1, then of `inner`; f64 leaves only the formula.
      const double bound = dtype == DType::f32 ? 1e-5 : 1e-13;
      EXPECT_TRUE(near(experts_forward(in, true).out, want, bound)) << s.tokens;
      EXPECT_TRUE(near(experts_forward(in, false).out, want, bound)) << s.tokens;
    }
  }
}

TEST(Experts, Bf16OperandsMatchTheLoopOverTokens) {
  for (const Sizes& s : kShapes) {
    const ExpertsInput in = with_bf16_operands(random_input(s, DType::f32));
    const Tensor want = reference(in);
    // Only silu(gate) * up is rounded again: 2^-9 of each of `inner` terms, with random signs.
    EXPECT_TRUE(near(experts_forward(in, true).out, want, 4e-3)) << s.tokens;
    EXPECT_TRUE(near(experts_forward(in, false).out, want, 4e-3)) << s.tokens;
    EXPECT_EQ(experts_forward(in, false).out.dtype(), DType::f32);
  }
}

TEST(Experts, Bf16GradientsAgreeWithDouble) {
  const Sizes s{131, 63, 47, 8, 3};
  const ExpertsInput in = with_bf16_operands(random_input(s, DType::f32));
  const ExpertsInput wide = to_double(in);
  const Tensor cotangent = random_tensor({s.tokens, s.width}, 9);
  const ExpertsGradients got =
      experts_backward(cotangent, in, experts_forward(in, true), ExpertsWanted{});
  const ExpertsGradients want = experts_backward(cotangent.to(DType::f64), wide,
                                                 experts_forward(wide, true), ExpertsWanted{});
  // The cotangent and what backward passes on are rounded to 2^-9 each.
  EXPECT_TRUE(near(got.x, want.x, 6e-3));
  EXPECT_TRUE(near(got.weights, want.weights, 6e-3));
  EXPECT_TRUE(near(got.gate_up, want.gate_up, 6e-3));
  EXPECT_TRUE(near(got.down, want.down, 6e-3));
}

TEST(Experts, OrderIsAStableSortByExpert) {
  const ExpertOrder order =
      sort_by_expert(Tensor::from<std::int32_t>({2, 0, 2, 2, 0, 4}, {3, 2}), 5);
  EXPECT_EQ(order.begin, (std::vector<std::int64_t>{0, 2, 2, 5, 5, 6}));
  EXPECT_EQ(order.pair_at, (std::vector<std::int32_t>{1, 4, 0, 2, 3, 5}));
  EXPECT_EQ(order.place_of, (std::vector<std::int32_t>{2, 0, 3, 4, 1, 5}));
  EXPECT_EQ(order.active, (std::vector<std::int32_t>{2, 0, 4}));
}

TEST(Experts, GradientsOfAllInputs) {
  for (const Sizes& s : {Sizes{4, 3, 2, 3, 2}, {1, 4, 3, 5, 2}, {9, 6, 5, 4, 3}}) {
    const ExpertsInput in = random_input(s, DType::f64);
    const auto result = check_gradient(
        [&](const std::vector<Variable>& v) { return experts(v[0], v[1], in.indices, v[2], v[3]); },
        {in.x, in.weights, in.gate_up, in.down});
    EXPECT_TRUE(result.passed) << result.message;
  }
}

TEST(Experts, GradientsOfSubsetsAreTheSameAndTheOthersAreLeftOut) {
  const Sizes s{12, 8, 4, 5, 2};
  const ExpertsInput in = random_input(s, DType::f64);
  const Tensor cotangent = random_tensor({s.tokens, s.width}, 9, DType::f64);
  const auto gradients = [&](unsigned mask) {
    std::vector<Variable> v = {
        Variable(in.x, (mask & 1) != 0), Variable(in.weights, (mask & 2) != 0),
        Variable(in.gate_up, (mask & 4) != 0), Variable(in.down, (mask & 8) != 0)};
    experts(v[0], v[1], in.indices, v[2], v[3]).backward(cotangent);
    std::vector<Tensor> out;
    for (const Variable& variable : v) out.push_back(variable.grad());
    return out;
  };
  const std::vector<Tensor> all = gradients(15);
  for (unsigned mask = 1; mask < 15; ++mask) {
    const std::vector<Tensor> some = gradients(mask);
    for (std::size_t i = 0; i < 4; ++i) {
      ASSERT_EQ(some[i].defined(), (mask >> i & 1) != 0);
      if (some[i].defined()) {
        EXPECT_TRUE(near(some[i], all[i], 1e-14));
      }
    }
  }
}

TEST(Experts, SinglePrecisionGradientsAgreeWithDouble) {
  const Sizes s{130, 64, 48, 8, 4};
  const ExpertsInput in = random_input(s, DType::f32);
  const ExpertsInput wide = to_double(in);
  const Tensor cotangent = random_tensor({s.tokens, s.width}, 9);
  const ExpertsGradients got =
      experts_backward(cotangent, in, experts_forward(in, true), ExpertsWanted{});
  const ExpertsGradients want = experts_backward(cotangent.to(DType::f64), wide,
                                                 experts_forward(wide, true), ExpertsWanted{});
  EXPECT_TRUE(near(got.x, want.x, 1e-5));
  EXPECT_TRUE(near(got.weights, want.weights, 1e-5));
  EXPECT_TRUE(near(got.gate_up, want.gate_up, 1e-5));
  EXPECT_TRUE(near(got.down, want.down, 1e-5));
}

TEST(Experts, IdleExpertsGetZeroGradients) {
  const Sizes s{6, 4, 3, 4, 2};
  ExpertsInput in = random_input(s, DType::f32);
  in.indices.fill(2);
  // Leave rubbish in the allocator's cache, so that memory never written would show.
  for (int i = 0; i < 4; ++i) Tensor::full({s.experts, 2 * s.inner, s.width}, 1e9);
  const ExpertsGradients got = experts_backward(random_tensor({s.tokens, s.width}, 9), in,
                                                experts_forward(in, true), ExpertsWanted{});
  for (const Tensor& grad : {got.gate_up, got.down}) {
    for (std::int64_t e = 0; e < s.experts; ++e) {
      const Tensor part = grad.slice(0, e, e + 1);
      if (e == 2)
        EXPECT_FALSE(near(part, Tensor::zeros(part.shape()), 1e-3));
      else
        EXPECT_TRUE(near(part, Tensor::zeros(part.shape()), 0));
    }
  }
}

TEST(Experts, NoGradKeepsNothing) {
  const ExpertsInput in = random_input({4, 4, 3, 2, 1}, DType::f32);
  EXPECT_FALSE(experts_forward(in, false).gate_up_output.defined());
  const NoGrad off;
  const Variable out = experts(Variable(in.x, true), Variable(in.weights), in.indices,
                               Variable(in.gate_up), Variable(in.down));
  EXPECT_FALSE(out.requires_grad());
}

void expect_same_bits_for_any_number_of_threads(const Sizes& s, bool bf16) {
  const ExpertsInput single = random_input(s, DType::f32);
  const ExpertsInput in = bf16 ? with_bf16_operands(single) : single;
  const Tensor cotangent = random_tensor({s.tokens, s.width}, 9);
  const int before = thread_count();
  std::vector<std::vector<Tensor>> results;
  for (const int threads : {1, 2, 3, 5}) {
    set_thread_count(threads);
    const ExpertsResult forward = experts_forward(in, true);
    const ExpertsGradients g = experts_backward(cotangent, in, forward, ExpertsWanted{});
    results.push_back({forward.out, g.x, g.weights, g.gate_up, g.down});
  }
  set_thread_count(before);
  for (const auto& result : results)
    for (std::size_t i = 0; i < result.size(); ++i)
      EXPECT_EQ(0, std::memcmp(result[i].raw(), results[0][i].raw(), result[i].bytes()))
          << "output " << i << ", tokens " << s.tokens;
}

TEST(Experts, SameBitsForAnyNumberOfThreads) {
  for (const bool bf16 : {false, true})
    expect_same_bits_for_any_number_of_threads({200, 64, 32, 16, 4}, bf16);
  for (const bool bf16 : {false, true})
    expect_same_bits_for_any_number_of_threads({1, 64, 32, 16, 4}, bf16);
  for (const bool bf16 : {false, true})
    expect_same_bits_for_any_number_of_threads({90, 256, 128, 2, 1}, bf16);
}

// Sums of over 256 terms in every product, where a product inside a parallel region (experts side
// by side) and one outside it (a single thread, or few experts) could differ.
TEST(Experts, SameBitsForAnyNumberOfThreadsWithLongSums) {
  for (const bool bf16 : {false, true})
    expect_same_bits_for_any_number_of_threads({700, 320, 288, 2, 1}, bf16);
  for (const bool bf16 : {false, true})
    expect_same_bits_for_any_number_of_threads({400, 320, 160, 4, 4}, bf16);
}

TEST(Experts, RefusesBadInput) {
  const ExpertsInput good = random_input({3, 4, 2, 5, 2}, DType::f32);
  ExpertsInput in = good;
  in.indices = Tensor::from<std::int32_t>({0, 1, 2, 5, 4, 0}, {3, 2});
  EXPECT_TRUE(throws_with([&] { experts_forward(in, false); },
                          {"experts: indices must be 0..4", "got 5 at position 3"}));
  in.indices = Tensor::from<std::int32_t>({0, -1, 2, 3, 4, 0}, {3, 2});
  EXPECT_TRUE(throws_with([&] { experts_forward(in, false); }, {"got -1 at position 1"}));
  in.indices = Tensor::zeros({4, 2}, DType::i32);
  EXPECT_TRUE(throws_with([&] { experts_forward(in, false); },
                          {"experts: indices must be [3, 2]", "[4, 2]"}));
  in = good;
  in.weights = Tensor::zeros({3, 1});
  EXPECT_TRUE(throws_with([&] { experts_forward(in, false); }, {"weights must be [3, 2]"}));
  in = good;
  in.gate_up = Tensor::zeros({5, 3, 4});
  EXPECT_TRUE(throws_with([&] { experts_forward(in, false); }, {"gate_up must be [5, 4, 4]"}));
  in = good;
  in.down = in.down.to(DType::f64);
  EXPECT_TRUE(throws_with([&] { experts_forward(in, false); }, {"experts: down must be f32"}));
  EXPECT_TRUE(throws_with(
      [&] {
        experts_backward(Tensor::zeros({3, 4}), good, experts_forward(good, false),
                         ExpertsWanted{});
      },
      {"experts_backward", "keep = false"}));
}

}  // namespace
}  // namespace lectern
