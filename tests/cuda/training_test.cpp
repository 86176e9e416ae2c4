// Losses, router and optimizer against their CPU twins, and products through the library's
// stand-in.
#include "core/ops/adamw.h"
#include "core/ops/cross_entropy.h"
#include "core/ops/linear.h"
#include "core/ops/linear_cross_entropy.h"
#include "core/ops/matmul.h"
#include "core/ops/router.h"
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

Tensor labels_of(std::int64_t rows, std::int64_t classes) {
  std::vector<std::int32_t> labels;
  for (std::int64_t i = 0; i < rows; ++i)
    labels.push_back(i % 4 == 2 ? kIgnoredLabel : static_cast<std::int32_t>(i * 13 % classes));
  return Tensor::from(labels, {rows});
}

TEST(CudaCrossEntropy, MatchesTheCpu) {
  for (const DType dtype : kStorageTypes)
    for (const Shape& shape :
         {Shape{0, 5}, Shape{1, 1}, Shape{5, 7}, Shape{9, 300}, Shape{3, 1025}}) {
      SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), shape));
      const Both logits = random_both(shape, 1, dtype, 4.0);
      const Tensor labels = labels_of(shape[0], shape[1]);
      const auto got = cross_entropy_forward(logits.cuda, labels);
      const auto want = cross_entropy_forward(logits.cpu, labels);
      EXPECT_EQ(got.count, want.count);
      EXPECT_TRUE(matches(got.loss, want.loss, DType::f32, 4));
      EXPECT_TRUE(matches(got.log_sum_exp, want.log_sum_exp, DType::f32, 4));
      const Both grad = both(Tensor::full({}, 0.7));
      EXPECT_TRUE(matches(cross_entropy_backward(grad.cuda, logits.cuda, labels, got),
                          cross_entropy_backward(grad.cpu, logits.cpu, labels, want), dtype, 4));
    }
}

TEST(CudaLinearCrossEntropy, MatchesTheCpu) {
  for (const std::int64_t rows : {0, 1, 3, 11})
    for (const bool want_hidden : {true, false})
      for (const bool want_weight : {true, false}) {
        const Both hidden = random_both({rows, 24}, 1), weight = random_both({70, 24}, 2);
        const Tensor labels = labels_of(rows, 70);
        const auto got = linear_cross_entropy_forward(hidden.cuda, weight.cuda, labels, want_hidden,
                                                      want_weight);
        const auto want =
            linear_cross_entropy_forward(hidden.cpu, weight.cpu, labels, want_hidden, want_weight);
        EXPECT_EQ(got.count, want.count);
        EXPECT_TRUE(matches(got.loss_sum, want.loss_sum, DType::f32, 16));
        EXPECT_TRUE(matches(got.grad_hidden, want.grad_hidden, DType::f32, 32));
        EXPECT_TRUE(matches(got.grad_weight, want.grad_weight, DType::f32, 32));
        if (!want_hidden) continue;
        const Both factor = both(Tensor::full({}, -1.5));
        EXPECT_TRUE(matches(scale_in_place(got.grad_hidden, factor.cuda),
                            scale_in_place(want.grad_hidden, factor.cpu), DType::f32, 32));
      }
}

TEST(CudaRouter, ChoosesAndWeighsAsTheCpu) {
  for (const auto& [tokens, experts, top_k] : std::vector<std::array<std::int64_t, 3>>{
           {0, 4, 2}, {1, 1, 1}, {5, 7, 3}, {9, 64, 6}, {6, 40, 32}, {3, 200, 8}, {2, 1000, 5}})
    for (const bool biased : {false, true}) {
      SCOPED_TRACE(fmt::format("{} {} {} {}", tokens, experts, top_k, biased));
      const Both x = random_both({tokens, 12}, 1), gate = random_both({experts, 12}, 2);
      RouterArgs args{.top_k = top_k, .scaling = 1.7};
      if (biased) args.selection_bias = random_both({experts}, 3, DType::f32, 0.1).cpu;
      const RouterResult got = router_forward(x.cuda, gate.cuda, args);
      const RouterResult want = router_forward(x.cpu, gate.cpu, args);
      EXPECT_TRUE(is_equal(got.indices, want.indices));
      EXPECT_TRUE(is_equal(got.counts, want.counts));
      EXPECT_TRUE(matches(got.probabilities, want.probabilities, DType::f32, 8));
      EXPECT_TRUE(matches(got.weights, want.weights, DType::f32, 8));
      EXPECT_TRUE(is_equal(count_experts(got.indices, experts), want.counts));
      const Both g1 = random_both({tokens, top_k}, 4), g2 = random_both({tokens, experts}, 5),
                 g3 = random_both({tokens, experts}, 6);
      const auto a = router_backward({g1.cuda, g2.cuda, g3.cuda}, got, 1.7, x.cuda, gate.cuda);
      const auto b = router_backward({g1.cpu, g2.cpu, g3.cpu}, want, 1.7, x.cpu, gate.cpu);
      EXPECT_TRUE(matches(a.x, b.x, DType::f32, 100));
      EXPECT_TRUE(matches(a.gate_weight, b.gate_weight, DType::f32, 100));
      const auto c = router_backward({g1.cuda, {}, {}}, got, 1.7, x.cuda, {});
      EXPECT_TRUE(matches(c.gate_weight,
                          router_backward({g1.cpu, {}, {}}, want, 1.7, x.cpu, {}).gate_weight,
                          DType::f32, 100));
      EXPECT_FALSE(c.x.defined());
      EXPECT_TRUE(matches(balance_loss_forward(got.probabilities, got.counts),
                          balance_loss_forward(want.probabilities, want.counts), DType::f32, 16));
      const Both grad = both(Tensor::full({}, 0.3));
      EXPECT_TRUE(matches(balance_loss_backward(grad.cuda, got.counts, tokens),
                          balance_loss_backward(grad.cpu, want.counts, tokens), DType::f32, 4));
    }
}

TEST(CudaRouter, EqualProbabilitiesAndNaN) {
  Tensor x = Tensor::full({3, 4}, 0.0);
  x.data<float>()[4] = std::numeric_limits<float>::quiet_NaN();
  const Both input = both(x), gate = random_both({6, 4}, 2);
  const RouterArgs args{.top_k = 3};
  EXPECT_TRUE(is_equal(router_forward(input.cuda, gate.cuda, args).indices,
                       router_forward(input.cpu, gate.cpu, args).indices));
}

TEST(CudaAdamW, MatchesTheCpuOverManyTensors) {
  const std::vector<Shape> shapes = {{1}, {3}, {0}, {40, 1000}, {5, 7}, {16384}, {16385}};
  std::vector<AdamWParameter> here, there;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const Both value = random_both(shapes[i], 10 + i), grad = random_both(shapes[i], 20 + i);
    const Both m = random_both(shapes[i], 30 + i), v = both(Tensor::full(shapes[i], 0.5));
    const double decay = i % 2 == 0 ? 0.1 : 0.0;
    here.push_back({value.cpu, grad.cpu, m.cpu, v.cpu, decay, 3 + static_cast<std::int64_t>(i)});
    // A part of a flat buffer may begin anywhere; the other tensors move in packs nevertheless.
    Tensor part = grad.cuda;
    if (i % 3 == 0) {
      const std::int64_t count = part.numel();
      part = Tensor::zeros({count + 1}, DType::f32, gpu()).slice(0, 1, count + 1).view(shapes[i]);
      part.copy_from(grad.cuda);
    }
    there.push_back({value.cuda, part, m.cuda, v.cuda, decay, 3 + static_cast<std::int64_t>(i)});
  }
  const AdamWStep step{
      .learning_rate = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .gradient_scale = 0.5};
  adamw_update(here, step);
  adamw_update(there, step);
  std::vector<Tensor> grads_here, grads_there;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    EXPECT_TRUE(matches(there[i].value, here[i].value, DType::f32)) << i;
    EXPECT_TRUE(matches(there[i].exp_avg, here[i].exp_avg, DType::f32));
    EXPECT_TRUE(matches(there[i].exp_avg_sq, here[i].exp_avg_sq, DType::f32));
    grads_here.push_back(here[i].grad);
    grads_there.push_back(there[i].grad);
  }
  const double want = sum_of_squares(grads_here);
  EXPECT_NEAR(sum_of_squares(grads_there), want, 1e-12 * want);
}

TEST(CudaAdamW, FindsWhatIsNotFinite) {
  Tensor x = random_both({1000}, 1).cpu;
  EXPECT_TRUE(all_finite(x.to(gpu())));
  x.data<float>()[999] = INFINITY;
  EXPECT_FALSE(all_finite(x.to(gpu())));
  x.data<float>()[999] = NAN;
  EXPECT_FALSE(all_finite(x.to(gpu())));
}

TEST(CudaLinear, ProductsGoThroughTheLibrary) {
  const Both x = random_both({2, 3, 8}, 1), w = random_both({5, 8}, 2), bias = random_both({5}, 3);
  const Both grad = random_both({2, 3, 5}, 4);
  EXPECT_TRUE(
      matches(linear(x.cuda, w.cuda, bias.cuda), linear(x.cpu, w.cpu, bias.cpu), DType::f32, 8));
  EXPECT_TRUE(
      matches(linear_grad_x(grad.cuda, w.cuda), linear_grad_x(grad.cpu, w.cpu), DType::f32, 8));
  EXPECT_TRUE(matches(linear_grad_weight(grad.cuda, x.cuda), linear_grad_weight(grad.cpu, x.cpu),
                      DType::f32, 8));
  EXPECT_TRUE(matches(linear_grad_bias(grad.cuda), linear_grad_bias(grad.cpu), DType::f32, 8));
  const Both a = random_both({4, 6}, 5), b = random_both({6, 3}, 6);
  EXPECT_TRUE(matches(matmul(a.cuda, b.cuda), matmul(a.cpu, b.cpu), DType::f32, 8));
  EXPECT_TRUE(matches(matmul(b.cuda, a.cuda, {.transpose_a = true, .transpose_b = true}),
                      matmul(b.cpu, a.cpu, {.transpose_a = true, .transpose_b = true}), DType::f32,
                      8));
}

}  // namespace
}  // namespace lectern
