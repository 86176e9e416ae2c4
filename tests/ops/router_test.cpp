#include "autograd/ops/router.h"

#include "autograd/gradient_check.h"
#include "core/io/safetensors.h"
#include "core/parallel.h"
#include "tests/testing.h"

#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

struct RouterReference {
  std::vector<double> probabilities, weights;
  std::vector<std::int32_t> indices;
};

/// Softmax, then a full sort by (score descending, index ascending).
RouterReference reference(const Tensor& x, const Tensor& gate, std::int64_t top_k, double scaling,
                          const std::vector<double>& bias) {
  const std::int64_t tokens = x.dim(0), width = x.dim(1), experts = gate.dim(0);
  const Tensor a = x.to(DType::f64), g = gate.to(DType::f64);
  RouterReference out;
  for (std::int64_t n = 0; n < tokens; ++n) {
    std::vector<double> p(static_cast<std::size_t>(experts));
    double sum = 0;
    for (std::int64_t e = 0; e < experts; ++e) {
      double logit = 0;
      for (std::int64_t c = 0; c < width; ++c)
        logit += a.data<double>()[n * width + c] * g.data<double>()[e * width + c];
      sum += p[static_cast<std::size_t>(e)] = std::exp(logit);
    }
    for (double& value : p) value /= sum;
    std::vector<std::int32_t> order(p.size());
    std::iota(order.begin(), order.end(), 0);
    const auto by = [&](auto&& score) {
      std::stable_sort(order.begin(), order.end(),
                       [&](auto i, auto j) { return score(i) > score(j); });
    };
    by([&](std::int32_t e) { return p[std::size_t(e)] + bias[std::size_t(e)]; });
    order.resize(static_cast<std::size_t>(top_k));
    std::sort(order.begin(), order.end());
    by([&](std::int32_t e) { return p[std::size_t(e)]; });
    out.probabilities.insert(out.probabilities.end(), p.begin(), p.end());
    for (const std::int32_t e : order) {
      out.indices.push_back(e);
      out.weights.push_back(scaling * p[std::size_t(e)]);
    }
  }
  return out;
}

bool same(const Tensor& got, const std::vector<std::int32_t>& want) {
  return std::equal(want.begin(), want.end(), got.data<std::int32_t>());
}

TEST(Router, MatchesSortedSoftmaxForManyShapes) {
  struct Case {
    std::int64_t tokens, width, experts, top_k;
  };
  for (const Case c :
       {Case{0, 4, 3, 2}, {1, 1, 1, 1}, {5, 7, 3, 3}, {33, 16, 17, 4}, {200, 64, 64, 6}}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      const Tensor x = random_tensor({c.tokens, c.width}, 1, dtype);
      const Tensor gate = random_tensor({c.experts, c.width}, 2, dtype, 0.3);
      const std::vector<double> bias(static_cast<std::size_t>(c.experts), 0.0);
      const RouterReference want = reference(x, gate, c.top_k, 2.5, bias);
      const RouterResult got = router_forward(x, gate, {.top_k = c.top_k, .scaling = 2.5});
      const double bound = dtype == DType::f32 ? 2e-6 : 1e-14;
      EXPECT_TRUE(
          near(got.probabilities, Tensor::from(want.probabilities, {c.tokens, c.experts}), bound));
      EXPECT_TRUE(near(got.weights, Tensor::from(want.weights, {c.tokens, c.top_k}), bound));
      EXPECT_TRUE(same(got.indices, want.indices));
      std::int64_t total = 0;
      for (std::int64_t e = 0; e < c.experts; ++e) {
        const std::int32_t count = got.counts.data<std::int32_t>()[e];
        EXPECT_EQ(count, std::count(want.indices.begin(), want.indices.end(), e));
        total += count;
      }
      EXPECT_EQ(total, c.tokens * c.top_k);
    }
  }
}

TEST(Router, TiesGoToTheLowestIndexAndNaNStillChoosesDifferentExperts) {
  const Tensor gate = Tensor::zeros({5, 2});
  RouterResult got = router_forward(Tensor::full({1, 2}, 1.0), gate, {.top_k = 3});
  EXPECT_TRUE(same(got.indices, {0, 1, 2}));
  got = router_forward(Tensor::full({1, 2}, NAN), gate, {.top_k = 3});
  EXPECT_TRUE(same(got.indices, {0, 1, 2}));
  // Experts 1 and 3 equal and largest, through an identity gate.
  const Tensor eye = Tensor::from<float>({1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}, {4, 4});
  got = router_forward(Tensor::from<float>({0, 2, 1, 2}, {1, 4}), eye, {.top_k = 3});
  EXPECT_TRUE(same(got.indices, {1, 3, 2}));
}

TEST(Router, SelectionBiasChangesTheChoiceButNotTheWeights) {
  const Tensor x = random_tensor({50, 8}, 3), gate = random_tensor({6, 8}, 4);
  std::vector<float> bias = {0.f, 0.9f, -0.5f, 0.f, 0.2f, -1.f};
  const RouterReference want =
      reference(x, gate, 2, 1.0, std::vector<double>(bias.begin(), bias.end()));
  const RouterResult got =
      router_forward(x, gate, {.top_k = 2, .selection_bias = Tensor::from(bias, {6})});
  EXPECT_TRUE(same(got.indices, want.indices));
  EXPECT_TRUE(near(got.weights, Tensor::from(want.weights, {50, 2}), 2e-6));
  const RouterResult plain = router_forward(x, gate, {.top_k = 2});
  EXPECT_NE(0, std::memcmp(plain.indices.raw(), got.indices.raw(), got.indices.bytes()));
}

TEST(Router, AgreesWithTheReferenceModelsRouter) {
  const auto file = SafetensorsFile::open(testing::fixture(testing::first_family() + "_A") /
                                          "case_crop2.safetensors");
  for (const std::string layer : {"moe.layer1.", "moe.layer2."}) {
    const Tensor logits = file.get(layer + "logits");
    const Tensor weight = file.get(layer + "topk_weight"), index = file.get(layer + "topk_index");
    const std::int64_t experts = logits.dim(-1), top_k = index.dim(-1);
    const std::int64_t tokens = logits.numel() / experts;
    const Tensor eye = Tensor::zeros({experts, experts});
    for (std::int64_t e = 0; e < experts; ++e) eye.data<float>()[e * experts + e] = 1;
    const RouterResult got =
        router_forward(logits.clone().view({tokens, experts}), eye, {.top_k = top_k});
    EXPECT_TRUE(near(got.weights, weight.clone().view({tokens, top_k}), 1e-6));
    EXPECT_EQ(0, std::memcmp(got.indices.raw(), index.clone().raw(), got.indices.bytes()));
  }
}

/// Gate and x such that the choice has a wide margin: finite differences must not cross it.
Tensor separated_x() {
  return Tensor::from<double>({3, 1.5, 0, -1, -3, 0, 3.2, 1.4, -1.5, 2, 0.3, 3.6}, {3, 4});
}
Tensor separated_gate() {
  Tensor gate = random_tensor({5, 4}, 5, DType::f64, 0.05);
  for (std::int64_t e = 0; e < 4; ++e) gate.data<double>()[e * 4 + e] += 1.0;
  return gate;
}

TEST(Router, GradientsOfAllOutputs) {
  for (const bool biased : {false, true}) {
    RouterArgs args = {.top_k = 2, .scaling = 1.7};
    if (biased) args.selection_bias = Tensor::from<float>({0.f, 0.f, 2.f, 0.f, -3.f}, {5});
    const auto result = check_gradients(
        [&](const std::vector<Variable>& in) {
          const RouterOutput out = router(in[0], in[1], args);
          return std::vector<Variable>{out.weights, out.probabilities, out.logits};
        },
        {separated_x(), separated_gate()});
    EXPECT_TRUE(result.passed) << result.message;
  }
}

TEST(Router, GradientThroughTheWeightsAloneAndForOneInput) {
  const auto weights_only = check_gradient(
      [](const std::vector<Variable>& in) {
        return router(in[0], Variable(separated_gate()), {.top_k = 3}).weights;
      },
      {separated_x()});
  EXPECT_TRUE(weights_only.passed) << weights_only.message;
}

TEST(Router, BalanceLossIsOneWhenEvenAndMatchesItsFormula) {
  // Four experts, each the first choice of one token with certainty 0.25.
  const Variable even(Tensor::full({4, 4}, 0.25));
  const Tensor spread = Tensor::from<std::int32_t>({0, 1, 2, 3}, {4, 1});
  EXPECT_NEAR(balance_loss(even, spread, 4, 1).value().item(), 1.0, 1e-7);
  // One expert takes everything: E / K = 4.
  const Variable one(Tensor::from<float>({1, 0, 0, 0, 1, 0, 0, 0}, {2, 4}));
  const Tensor zeros = Tensor::zeros({2, 1}, DType::i32);
  EXPECT_NEAR(balance_loss(one, zeros, 4, 1).value().item(), 4.0, 1e-7);

  const Tensor p = random_tensor({7, 5}, 6, DType::f64);
  const Tensor index =
      Tensor::from<std::int32_t>({0, 1, 0, 2, 0, 3, 1, 2, 0, 1, 0, 2, 3, 1}, {7, 2});
  double want = 0;
  for (std::int32_t e = 0; e < 5; ++e) {
    double fraction = 0, mean = 0;
    for (int i = 0; i < 14; ++i) fraction += index.data<std::int32_t>()[i] == e;
    for (int n = 0; n < 7; ++n) mean += p.data<double>()[n * 5 + e] / 7;
    want += 5.0 / (2 * 7) * fraction * mean;
  }
  EXPECT_NEAR(balance_loss(Variable(p), index, 5, 2).value().item(), want, 1e-13);
  const auto result = check_gradient(
      [&](const std::vector<Variable>& in) { return balance_loss(in[0], index, 5, 2); }, {p});
  EXPECT_TRUE(result.passed) << result.message;
  const Variable none(Tensor::zeros({0, 4}));
  EXPECT_EQ(balance_loss(none, Tensor::empty({0, 2}, DType::i32), 4, 2).value().item(), 0.0);
}

TEST(Router, BalanceLossReachesTheGateThroughTheRouter) {
  const auto result = check_gradient(
      [](const std::vector<Variable>& in) {
        const RouterOutput out = router(in[0], in[1], {.top_k = 2});
        return balance_loss(out.probabilities, out.indices, 5, 2);
      },
      {separated_x(), separated_gate()});
  EXPECT_TRUE(result.passed) << result.message;
}

TEST(Router, SelectionBiasMovesTowardsTheIdleExperts) {
  const Tensor bias = Tensor::from<float>({0.f, 1.f, 0.f, 0.5f}, {4});
  const Tensor counts = Tensor::from<std::int32_t>({10, 0, 4, 2}, {4});  // mean 4
  const auto version = bias.storage()->version();
  update_selection_bias(bias, counts, 0.25);
  EXPECT_TRUE(near(bias, Tensor::from<float>({-0.25f, 1.25f, 0.f, 0.75f}, {4}), 0));
  EXPECT_GT(bias.storage()->version(), version);
}

TEST(Router, SameBitsForAnyNumberOfThreads) {
  const Tensor x = random_tensor({300, 64}, 7), gate = random_tensor({16, 64}, 8);
  const int before = thread_count();
  std::vector<RouterResult> results;
  for (const int threads : {1, 2, 3}) {
    set_thread_count(threads);
    results.push_back(router_forward(x, gate, {.top_k = 4}));
  }
  set_thread_count(before);
  for (const RouterResult& r : results) {
    EXPECT_EQ(0, std::memcmp(r.weights.raw(), results[0].weights.raw(), r.weights.bytes()));
    EXPECT_EQ(0, std::memcmp(r.indices.raw(), results[0].indices.raw(), r.indices.bytes()));
  }
}

TEST(Router, RefusesBadInput) {
  const Tensor x = Tensor::zeros({2, 4}), gate = Tensor::zeros({3, 4});
  EXPECT_TRUE(throws_with([&] { router_forward(x, gate, {.top_k = 0}); },
                          {"router: top_k must be 1..3", "got 0"}));
  EXPECT_TRUE(throws_with([&] { router_forward(x, gate, {.top_k = 4}); }, {"top_k", "got 4"}));
  EXPECT_TRUE(throws_with(
      [&] {
        router_forward(x, Tensor::zeros({3, 5}), {.top_k = 1});
      },
      {"router: gate_weight must be [3, 4]"}));
  EXPECT_TRUE(throws_with([&] { router_forward(x, gate.to(DType::f64), {.top_k = 1}); },
                          {"router: gate_weight must be f32"}));
  EXPECT_TRUE(
      throws_with([&] { router_forward(x.to(DType::bf16), gate.to(DType::bf16), {.top_k = 1}); },
                  {"router: x must be f32 or f64", "bf16"}));
  EXPECT_TRUE(throws_with(
      [&] { router_forward(x, gate, {.top_k = 1, .selection_bias = Tensor::zeros({2})}); },
      {"selection_bias must be [3]"}));
  EXPECT_TRUE(throws_with(
      [&] {
        count_experts(Tensor::from<std::int32_t>({0, 1, 7}, {3}), 3);
      },
      {"count_experts: indices must be 0..2", "got 7 at position 2"}));
  EXPECT_TRUE(throws_with(
      [&] {
        balance_loss(Variable(x), Tensor::zeros({2, 1}, DType::i32), 4, 2);
      },
      {"balance_loss: indices must be [2, 2]"}));
}

}  // namespace
}  // namespace lectern
