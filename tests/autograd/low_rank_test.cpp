// Low-rank pairs: values against the merged matrix, gradients against finite differences.
#include "autograd/ops/low_rank.h"

#include "autograd/compute_dtype.h"
#include "autograd/ops/linear.h"
#include "tests/ops/check_op.h"

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;

/// Two pairs of rank 2 in rows [0, 3) and [5, 6) of a matrix with 6 rows and 4 columns.
LowRankPairs pairs_of(const Variable& a, const Variable& b) {
  return {.a = a, .b = b, .rank = 2, .rows = {{0, 3, 0.5}, {5, 6, 2.0}}};
}

const std::vector<Tensor>& inputs() {
  static const std::vector<Tensor> tensors = {random_tensor({2, 5, 4}, 1), random_tensor({6, 4}, 2),
                                              random_tensor({6}, 3), random_tensor({4, 4}, 4),
                                              random_tensor({4, 2}, 5)};
  return tensors;
}

Variable layer(const std::vector<Variable>& in) {
  return low_rank_linear(in[0], in[0], in[1], in[2], pairs_of(in[3], in[4]));
}

/// What dropout leaves is another input.
Variable dropped_layer(const std::vector<Variable>& in) {
  return low_rank_linear(in[0], in[5], in[1], in[2], pairs_of(in[3], in[4]));
}

Variable merged_layer(const std::vector<Variable>& in) {
  return linear(in[0], low_rank_merged(in[1], pairs_of(in[3], in[4])), in[2]);
}

std::vector<Tensor> with(std::vector<Tensor> tensors, const Tensor& last) {
  tensors.push_back(last);
  return tensors;
}

TEST(LowRank, LayerEqualsTheMergedMatrix) {
  const auto apart = testing::output_and_gradients(layer, inputs());
  const auto merged = testing::output_and_gradients(merged_layer, inputs());
  for (std::size_t i = 0; i < apart.size(); ++i) EXPECT_TRUE(near(apart[i], merged[i], 1e-5)) << i;
}

TEST(LowRank, Gradients) {
  const auto all = with(inputs(), random_tensor({2, 5, 4}, 6));
  EXPECT_TRUE(testing::gradient_holds(layer, inputs()));
  EXPECT_TRUE(testing::gradient_holds(dropped_layer, all));
  EXPECT_TRUE(testing::gradient_holds(merged_layer, inputs()));
  EXPECT_TRUE(testing::single_matches_double(dropped_layer, all, 1e-5));
  EXPECT_TRUE(testing::threads_do_not_matter(layer, inputs()));
}

TEST(LowRank, StacksHaveGradients) {
  // [2 matrices, 3 rows, 4 columns], pairs in rows [0, 1) and [1, 3).
  const testing::Operation merge = [](const std::vector<Variable>& in) {
    return low_rank_merged(
        in[0], {.a = in[1], .b = in[2], .rank = 1, .rows = {{0, 1, 0.5}, {1, 3, -1.0}}});
  };
  EXPECT_TRUE(testing::gradient_holds(
      merge,
      {random_tensor({2, 3, 4}, 1), random_tensor({2, 2, 4}, 2), random_tensor({2, 3, 1}, 3)}));
}

TEST(LowRank, WhileBIsZeroTheBitsAreTheBases) {
  std::vector<Variable> in;
  for (const Tensor& tensor : inputs()) in.emplace_back(tensor);
  in[4] = Variable(Tensor::zeros({4, 2}));
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const ComputeDType scope(dtype);
    const Tensor want = linear(in[0], in[1], in[2]).value();
    EXPECT_TRUE(near(layer(in).value(), want, 0));
    EXPECT_TRUE(near(merged_layer(in).value(), want, 0));
  }
}

/// A frozen base may lie in bf16: the products are those of the base rounded from f32.
TEST(LowRank, ABaseInBf16GivesTheBitsOfRounding) {
  const ComputeDType scope(DType::bf16);
  std::vector<Tensor> results[2];
  for (const bool stored : {false, true}) {
    std::vector<Variable> in;
    for (const Tensor& tensor : inputs()) in.emplace_back(tensor, true);
    in[1] =
        Variable(stored ? inputs()[1].to(DType::bf16) : inputs()[1].to(DType::bf16).to(DType::f32));
    const Variable y = layer(in);
    y.backward(random_tensor({2, 5, 6}, 9));
    results[stored] = {y.value(), in[0].grad(), in[2].grad(), in[3].grad(), in[4].grad()};
  }
  for (std::size_t i = 0; i < results[0].size(); ++i)
    EXPECT_TRUE(near(results[1][i], results[0][i], 0)) << i;
}

}  // namespace
}  // namespace lectern
