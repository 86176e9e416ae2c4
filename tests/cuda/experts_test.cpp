// The expert products and their order against the CPU twin.
#include "core/ops/experts.h"

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

struct ExpertsCase {
  std::int64_t tokens, width, inner, experts, top_k;
  bool one_expert = false;  // everything goes to the last
};

Tensor indices_of(const ExpertsCase& c) {
  std::vector<std::int32_t> indices;
  for (std::int64_t i = 0; i < c.tokens * c.top_k; ++i)
    indices.push_back(
        static_cast<std::int32_t>(c.one_expert ? c.experts - 1 : (i * 7 + i / 5) % c.experts));
  return Tensor::from(indices, {c.tokens, c.top_k});
}

void check_experts(const ExpertsCase& c, DType dtype) {
  SCOPED_TRACE(fmt::format("{} N{} C{} I{} E{} K{}", name_of(dtype), c.tokens, c.width, c.inner,
                           c.experts, c.top_k));
  const Both x = random_both({c.tokens, c.width}, 1, dtype);
  const Both weights = random_both({c.tokens, c.top_k}, 2);
  const Both gate_up = random_both({c.experts, 2 * c.inner, c.width}, 3, dtype, 0.3);
  const Both down = random_both({c.experts, c.width, c.inner}, 4, dtype, 0.3);
  const Both grad = random_both({c.tokens, c.width}, 5);
  const Tensor indices = indices_of(c);
  const ExpertsInput here{x.cpu, weights.cpu, indices, gate_up.cpu, down.cpu};
  const ExpertsInput there{x.cuda, weights.cuda, indices.to(gpu()), gate_up.cuda, down.cuda};
  const ExpertsResult want = experts_forward(here, true), got = experts_forward(there, true);
  EXPECT_TRUE(matches(got.out, want.out, dtype, 64));
  const ExpertOrder& order = want.order;
  const auto as_tensor = [](const std::vector<std::int32_t>& v) {
    return Tensor::from(v, {static_cast<std::int64_t>(v.size())});
  };
  EXPECT_TRUE(is_equal(got.order.pair_at_on_device, as_tensor(order.pair_at)));
  EXPECT_TRUE(is_equal(got.order.place_of_on_device, as_tensor(order.place_of)));
  EXPECT_TRUE(
      is_equal(got.order.begin_on_device, as_tensor({order.begin.begin(), order.begin.end()})));
  for (const ExpertsWanted wanted : {ExpertsWanted{}, ExpertsWanted{true, false, false, true},
                                     ExpertsWanted{false, true, true, false}}) {
    const ExpertsGradients a = experts_backward(grad.cuda, there, got, wanted);
    const ExpertsGradients b = experts_backward(grad.cpu, here, want, wanted);
    EXPECT_TRUE(matches(a.x, b.x, dtype, 64));
    EXPECT_TRUE(matches(a.weights, b.weights, dtype, 64));
    EXPECT_TRUE(matches(a.gate_up, b.gate_up, dtype, 64));
    EXPECT_TRUE(matches(a.down, b.down, dtype, 64));
  }
}

TEST(CudaExperts, MatchesTheCpu) {
  for (const DType dtype : kStorageTypes) {
    check_experts({0, 8, 4, 3, 2}, dtype);
    check_experts({1, 1, 1, 1, 1}, dtype);
    check_experts({5, 7, 3, 4, 2}, dtype);      // nothing a multiple of a pack
    check_experts({9, 16, 8, 40, 3}, dtype);    // most experts idle
    check_experts({150, 24, 40, 3, 2}, dtype);  // several tiles an expert, several blocks of pairs
    check_experts({70, 136, 72, 2, 1, true},
                  dtype);  // all to one, more than a tile of columns and depth
  }
}

TEST(CudaExperts, AForwardPassThatKeepsNothing) {
  const Both x = random_both({6, 8}, 1), weights = random_both({6, 2}, 2);
  const Both gate_up = random_both({3, 8, 8}, 3), down = random_both({3, 8, 4}, 4);
  const Tensor indices = indices_of({6, 8, 4, 3, 2});
  const ExpertsResult got =
      experts_forward({x.cuda, weights.cuda, indices.to(gpu()), gate_up.cuda, down.cuda}, false);
  EXPECT_FALSE(got.gate_up_output.defined());
  EXPECT_TRUE(matches(
      got.out, experts_forward({x.cpu, weights.cpu, indices, gate_up.cpu, down.cpu}, false).out,
      DType::f32, 32));
}

TEST(CudaExperts, OperandsMustBeTogether) {
  const Both x = random_both({6, 8}, 1), weights = random_both({6, 2}, 2);
  const Both gate_up = random_both({3, 8, 8}, 3), down = random_both({3, 8, 4}, 4);
  const Tensor indices = indices_of({6, 8, 4, 3, 2});
  EXPECT_TRUE(testing::throws_with(
      [&] {
        experts_forward({x.cuda, weights.cuda, indices, gate_up.cuda, down.cuda}, false);
      },
      {"experts: indices must be on cuda:0, got i32 [6, 2] cpu"}));
}

}  // namespace
}  // namespace lectern
