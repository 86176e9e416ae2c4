// A block that runs again in backward: it is given what its pass is given, and reports once.
#include "nn/blocks/block_graph.h"

#include "autograd/ops/elementwise.h"
#include "autograd/ops/exchanged_experts.h"
#include "tests/testing.h"

#include <algorithm>

namespace lectern {
namespace {

using testing::near;

/// An exchange that nobody uses: only its address counts here.
class Exchange : public RowExchange {
 public:
  std::int64_t rank() const override { return 0; }
  std::int64_t ranks() const override { return 1; }
  Counts counts(const Counts& send) override { return send; }
  void start(const Tensor&, const Counts&, const Tensor&, const Counts&) override {}
  void wait() override {}
};

Variable vector_of(const std::vector<float>& values, bool requires_grad = true) {
  Tensor out = Tensor::empty({static_cast<std::int64_t>(values.size())});
  std::copy(values.begin(), values.end(), out.data<float>());
  return Variable(out, requires_grad);
}

struct Result {
  ForwardContext context;
  Tensor value, x_grad, weight_grad;
  int runs = 0, heard = 0;
};

/// weight * x with a report of every kind; loss = sum of both the output and the balance loss.
Result run(bool recomputes) {
  Result result;
  Exchange exchange;
  const Variable x = vector_of({1, -2, 3}), weight = vector_of({4, 5, 6});
  ForwardContext& context = result.context;
  context.recompute_blocks = recomputes;
  context.stream_interval = 7;
  context.want_balance_loss = context.want_stream_statistics = true;
  context.expert_exchange = &exchange;
  context.selection_bias[3] = Tensor::zeros({2});
  context.record_seam = [&](const std::string& name, const Tensor&) {
    EXPECT_EQ(name, "inside");
    ++result.heard;
  };
  context.expert_counts[1] = Tensor::zeros({2}, DType::i32);
  context.balance_losses.push_back(vector_of({9}, false));
  const BlockPass pass = [&](const Variable& in, ForwardContext& inner) {
    ++result.runs;
    EXPECT_EQ(inner.recompute_blocks, recomputes);
    EXPECT_EQ(inner.stream_interval, 7);
    EXPECT_TRUE(inner.want_balance_loss && inner.want_stream_statistics);
    EXPECT_EQ(inner.expert_exchange, &exchange);
    EXPECT_TRUE(inner.selection_bias.contains(3));
    inner.seam("inside", in.value());
    inner.balance_losses.push_back(multiply(in, in));
    inner.expert_counts[3] = Tensor::zeros({2}, DType::i32);
    inner.stream_statistics.push_back({.stack = "inside"});
    inner.stream_mixes.push_back(Tensor::zeros({2, 2}));
    return multiply(weight, in);
  };
  const Variable out = run_block(pass, x, {weight}, context);
  EXPECT_EQ(context.balance_losses.size(), 2u);
  add(out, context.balance_losses.back()).backward(Tensor::full({3}, 1.0));
  result.value = out.value();
  result.x_grad = x.grad();
  result.weight_grad = weight.grad();
  return result;
}

TEST(RunBlock, ABlockThatRunsAgainIsGivenTheSameAndReportsOnce) {
  const Result once = run(false), again = run(true);
  EXPECT_EQ(once.runs, 1);
  EXPECT_EQ(again.runs, 2);
  for (const Result* result : {&once, &again}) {
    EXPECT_EQ(result->heard, 1);
    EXPECT_EQ(result->context.balance_losses.size(), 2u);
    EXPECT_EQ(result->context.stream_statistics.size(), 1u);
    EXPECT_EQ(result->context.stream_mixes.size(), 1u);
    EXPECT_EQ(result->context.expert_counts.size(), 2u);
  }
  EXPECT_TRUE(near(again.value, once.value, 0));
  EXPECT_TRUE(near(again.x_grad, once.x_grad, 0));
  EXPECT_TRUE(near(again.weight_grad, once.weight_grad, 0));
  EXPECT_EQ(again.x_grad.data<float>()[1], 5 - 2 * 2.0f);  // weight + 2 x
}

TEST(RunBlock, WithoutAGraphNothingRunsAgain) {
  const NoGrad off;
  ForwardContext context;
  context.recompute_blocks = true;
  int runs = 0;
  const Variable out = run_block(
      [&](const Variable& in, ForwardContext& inner) {
        EXPECT_EQ(&inner, &context);
        ++runs;
        return scale(in, 2);
      },
      vector_of({1, 2}), {}, context);
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(out.value().data<float>()[1], 4.0f);
}

}  // namespace
}  // namespace lectern
