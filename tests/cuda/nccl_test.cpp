// A group of one rank with a GPU: every operation gives what it was given, and what training makes
// of them (buckets, experts on other ranks) is what a device alone computes.
#include "autograd/ops/exchanged_experts.h"
#include "autograd/ops/experts.h"
#include "distributed/expert_parallel.h"
#include "distributed/gradient_buckets.h"
#include "distributed/groups.h"
#include "tests/cuda/check_cuda.h"

namespace lectern {
namespace {

using testing::gpu;
using testing::is_equal;
using testing::random_tensor;
using testing::throws_with;

/// A group of this process, or nothing where the build has no NCCL.
std::shared_ptr<Communicator> group_of_one() {
  const Device device = gpu();
  return has_nccl() ? make_nccl_group(make_single_group(), device) : nullptr;
}

TEST(NcclGroup, OfOneRankIsItself) {
  const auto group = group_of_one();
  if (!group) GTEST_SKIP() << "skipped: this build has no NCCL";
  EXPECT_EQ(group->size(), 1);
  EXPECT_EQ(group->name(), "nccl");
  for (const DType dtype :
       {DType::f32, DType::f64, DType::bf16, DType::i32, DType::i64, DType::u8}) {
    const Tensor want = Tensor::full({7, 3}, 5, dtype);
    const Tensor x = want.to(gpu()), out = Tensor::zeros({7, 3}, dtype, gpu());
    group->broadcast(x, 0);
    group->all_gather(x, out);
    EXPECT_TRUE(is_equal(out, want)) << name_of(dtype);
    const Tensor moved = Tensor::zeros({7, 3}, dtype, gpu());
    group->all_to_all(x, {7}, moved, {7});
    EXPECT_TRUE(is_equal(moved, want)) << name_of(dtype);
    if (dtype == DType::u8) continue;
    group->all_reduce(x);
    const Tensor sum = Tensor::zeros({7, 3}, dtype, gpu());
    group->reduce_scatter(x, sum, {7}, Reduction::max);
    EXPECT_TRUE(is_equal(sum, want)) << name_of(dtype);
  }
  const Tensor none = Tensor::empty({0, 3}, DType::f32, gpu());
  group->all_reduce(none);
  group->all_to_all(none, {0}, none, {0});
  Handle started = group->start_all_reduce(random_tensor({1000}, 1).to(gpu()));
  while (!started.test()) {
  }
  group->barrier();
  EXPECT_EQ(group->split(-1, 0), nullptr);
  const auto part = group->split(0, 0);
  EXPECT_EQ(part->name(), "nccl");
  const Tensor x = random_tensor({5}, 2).to(gpu());
  part->all_reduce(x);
  EXPECT_TRUE(is_equal(x, random_tensor({5}, 2)));
}

TEST(NcclGroup, TensorsOfTheHostGoThroughTheHost) {
  const auto group = group_of_one();
  if (!group) GTEST_SKIP() << "skipped: this build has no NCCL";
  const Tensor x = random_tensor({5}, 1), out = Tensor::zeros({5});
  group->all_reduce(x);
  group->all_gather(x, out);
  EXPECT_TRUE(is_equal(out, x));
  EXPECT_TRUE(throws_with([&] { group->all_gather(x, out.to(gpu())); }, {"all_gather: output"}));
}

TEST(NcclGroup, RefusesAnotherDevice) {
  if (!has_nccl()) GTEST_SKIP() << "skipped: this build has no NCCL";
  EXPECT_TRUE(throws_with([] { make_nccl_group(make_single_group(), Device{}); },
                          {"NCCL needs device cuda, got cpu"}));
}

TEST(NcclGroup, BucketsOnTheDevice) {
  const auto group = group_of_one();
  if (!group) GTEST_SKIP() << "skipped: this build has no NCCL";
  for (const auto result : {GradientBuckets::Result::own_part, GradientBuckets::Result::whole}) {
    NamedParameters parameters;
    std::vector<Tensor> gradients;
    for (const std::int64_t size : {5, 40, 1, 300}) {
      const auto seed = static_cast<std::uint64_t>(size);
      Variable variable(random_tensor({size}, seed).to(gpu()), true);
      gradients.push_back(random_tensor({size}, seed + 1));
      variable.set_grad(gradients.back().to(gpu()));
      parameters.emplace_back(fmt::format("p{}", size), variable);
    }
    GradientBuckets buckets(parameters, group, 64, result);
    for (const auto& [name, variable] : parameters) buckets.gradient_complete(variable.state());
    buckets.reduce();
    EXPECT_FALSE(buckets.first_non_finite_here().has_value());
    if (result == GradientBuckets::Result::whole) {
      for (std::size_t i = 0; i < gradients.size(); ++i)
        EXPECT_TRUE(is_equal(parameters[i].second.grad(), gradients[i])) << i;
      continue;
    }
    ASSERT_EQ(buckets.own().size(), gradients.size());
    for (const ParameterPiece& piece : buckets.own())
      EXPECT_TRUE(is_equal(piece.gradient, gradients[piece.parameter])) << piece.parameter;
    std::vector<Tensor> before;
    for (const auto& [name, variable] : parameters) before.push_back(variable.value().clone());
    buckets.gather_values();
    for (std::size_t i = 0; i < before.size(); ++i)
      EXPECT_TRUE(is_equal(parameters[i].second.value(), before[i])) << i;
  }
}

TEST(NcclGroup, ExchangedExpertsAreExperts) {
  const auto group = group_of_one();
  if (!group) GTEST_SKIP() << "skipped: this build has no NCCL";
  ExpertParallel exchange(group);
  const std::int64_t experts_count = 4, tokens = 13, choices = 2, width = 16, inner = 8;
  const Tensor indices = Tensor::empty({tokens, choices}, DType::i32);
  for (std::int64_t i = 0; i < indices.numel(); ++i)
    indices.data<std::int32_t>()[i] = static_cast<std::int32_t>((i * 7 + i / 3) % experts_count);
  const auto leaf = [&](const Shape& shape, std::uint64_t seed) {
    return Variable(random_tensor(shape, seed).to(gpu()), true);
  };
  std::vector<std::vector<Tensor>> gradients;
  std::vector<Tensor> outputs;
  for (const bool exchanged : {false, true}) {
    std::vector<Variable> in = {leaf({tokens, width}, 1), leaf({tokens, choices}, 2),
                                leaf({experts_count, 2 * inner, width}, 3),
                                leaf({experts_count, width, inner}, 4)};
    const Tensor there = indices.to(gpu());
    const Variable out =
        exchanged ? exchanged_experts(in[0], in[1], there, in[2], in[3], experts_count, exchange)
                  : experts(in[0], in[1], there, in[2], in[3]);
    outputs.push_back(out.value());
    out.backward(random_tensor({tokens, width}, 5).to(gpu()));
    gradients.emplace_back();
    for (const Variable& each : in) gradients.back().push_back(each.grad());
  }
  EXPECT_TRUE(testing::matches(outputs[1], outputs[0].to(Device{}), DType::f32, width));
  for (std::size_t i = 0; i < 4; ++i)
    EXPECT_TRUE(
        testing::matches(gradients[1][i], gradients[0][i].to(Device{}), DType::f32, width * inner))
        << i;
  EXPECT_EQ(exchange.statistics().rows_sent, 0);
  EXPECT_EQ(exchange.statistics().rows_kept, tokens * choices);
}

}  // namespace
}  // namespace lectern
