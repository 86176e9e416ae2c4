// Linear layers: published matrices side by side, and a low-rank pair for each of them.
#include "nn/linear.h"

#include "autograd/ops/elementwise.h"
#include "autograd/ops/linear.h"
#include "nn/blocks/transformer_block.h"
#include "tests/testing.h"

#include <map>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

const Initialiser kNormal = Initialiser::normal(1);

std::map<std::string, Tensor> state_of(const ParameterStore& store) {
  std::map<std::string, Tensor> out;
  for (const auto& [name, tensor] : store.state()) out[name] = tensor;
  return out;
}

/// Of rank 2 in some rows of a matrix with `columns`.
LowRankPairs pair_for(const std::vector<LowRankRows>& rows, std::int64_t columns,
                      std::uint64_t seed) {
  std::int64_t count = 0;
  for (const LowRankRows& each : rows) count += each.end - each.begin;
  const auto pairs = static_cast<std::int64_t>(rows.size());
  return {.a = Variable(random_tensor({2 * pairs, columns}, seed), true),
          .b = Variable(random_tensor({count, 2}, seed + 1), true),
          .rank = 2,
          .rows = rows};
}

/// q [4, 3], k [2, 3] and v [2, 3] in one matrix, with biases.
struct Fused {
  ParameterStore store{1};
  Linear layer{store, "qkv", {{"q", 4}, {"k", 2}, {"v", 2}}, 3, kNormal, true};
  Variable x{random_tensor({5, 2, 3}, 9), true};
};

TEST(Linear, PartsHaveThePublishedNames) {
  Fused fused;
  const auto state = state_of(fused.store);
  ASSERT_EQ(state.size(), 6u);
  EXPECT_EQ(fused.store.parameters().size(), 2u);
  const Tensor y = fused.layer.forward(fused.x).value();
  EXPECT_EQ(y.shape(), (Shape{5, 2, 8}));
  const auto tensor = [&](const char* name) { return Variable(state.at(name).contiguous()); };
  const Tensor k = linear(fused.x, tensor("k.weight"), tensor("k.bias")).value();
  EXPECT_TRUE(near(y.slice(2, 4, 6).contiguous(), k, 1e-6));
  ParameterStore store(1);
  const Linear single(store, {"o", 4}, 3, kNormal);
  EXPECT_EQ(single.forward(fused.x).shape(), (Shape{5, 2, 4}));
  EXPECT_EQ(state_of(store).size(), 1u) << "no bias";
}

TEST(Linear, APairChangesItsMatrixAlone) {
  Fused fused;
  const Tensor base = fused.layer.forward(fused.x).value();
  const LowRankPairs pair = pair_for({{4, 6, 0.5}}, 3, 20);
  const Tensor b = pair.b.value().clone();
  pair.b.value().fill(0);
  fused.store.set_low_rank("qkv.weight", pair);
  EXPECT_TRUE(near(fused.layer.forward(fused.x).value(), base, 0)) << "B is 0: the base's bits";
  pair.b.value().copy_from(b);
  pair.b.value().mark_modified();
  const Tensor adapted = fused.layer.forward(fused.x).value();
  for (const auto& [begin, end] : {std::pair{0, 4}, std::pair{6, 8}})
    EXPECT_TRUE(
        near(adapted.slice(2, begin, end).contiguous(), base.slice(2, begin, end).contiguous(), 0));
  EXPECT_FALSE(near(adapted, base, 0.01));
  // The same as a matrix that was merged.
  const Variable merged_weight = fused.layer.weight();
  const Variable bias = fused.store.parameters()[1].variable;
  EXPECT_TRUE(near(adapted, linear(fused.x, merged_weight, bias).value(), 1e-5));
  fused.store.set_low_rank("qkv.weight", {});
  EXPECT_TRUE(near(fused.layer.forward(fused.x).value(), base, 0));
}

TEST(Linear, GradientsReachPairsOfAFrozenBase) {
  Fused fused;
  fused.store.freeze({"qkv"});
  const LowRankPairs k_and_v = pair_for({{4, 6, 0.5}, {6, 8, 0.25}}, 3, 20);
  fused.store.set_low_rank("qkv.weight", k_and_v);
  const Tensor cotangent = random_tensor({5, 2, 8}, 40);
  const auto loss = [&] {
    const NoGrad off;
    const Tensor y = fused.layer.forward(fused.x).value();
    double sum = 0;
    for (std::int64_t i = 0; i < y.numel(); ++i)
      sum += double{y.data<float>()[i]} * double{cotangent.data<float>()[i]};
    return sum;
  };
  fused.layer.forward(fused.x).backward(cotangent);
  for (const Parameter& parameter : fused.store.parameters())
    EXPECT_FALSE(parameter.variable.grad().defined()) << parameter.name;
  for (const Variable& variable : {k_and_v.a, k_and_v.b}) {
    ASSERT_TRUE(variable.grad().defined());
    const std::int64_t last = variable.value().numel() - 1;
    constexpr float kStep = 1e-2F;  // the loss is linear in A and in B
    float& element = variable.value().data<float>()[last];
    const float before = element;
    const auto at = [&](float value) {
      element = value;
      variable.value().mark_modified();
      return loss();
    };
    const double slope = (at(before + kStep) - at(before - kStep)) / (2.0 * kStep);
    at(before);
    EXPECT_NEAR(variable.grad().data<float>()[last], slope, 1e-3);
  }
}

TEST(Linear, ReadingKeepsTheSumUntilAPairChanges) {
  const std::vector<ParameterPart> parts = {
      {"0.gate", 0, 1, 0}, {"0.up", 1, 2, 0}, {"1.gate", 0, 1, 1}, {"1.up", 1, 2, 1}};
  ParameterStore store(1);
  const LinearStack stack(store, "experts", {2, 2, 3}, kNormal, parts, {});
  const LowRankPairs pairs{.a = Variable(random_tensor({2, 4, 3}, 1), true),
                           .b = Variable(random_tensor({2, 2, 2}, 2), true),
                           .rank = 2,
                           .rows = {{0, 1, 1.0}, {1, 2, 0.5}}};
  store.set_low_rank("experts", pairs);
  const Tensor trained = stack.weight().value();
  EXPECT_TRUE(stack.weight().requires_grad());
  const NoGrad off;
  const Tensor read = stack.weight().value();
  EXPECT_TRUE(near(read, trained, 0));
  EXPECT_EQ(stack.weight().value().raw(), read.raw()) << "made once";
  pairs.b.value().fill(0);
  pairs.b.value().mark_modified();
  EXPECT_TRUE(near(stack.weight().value(), store.parameters()[0].variable.value(), 0));
}

TEST(Linear, PairsThatDoNotFitAreRefused) {
  Fused fused;
  const auto refused = [&](const std::string& parameter, const LowRankPairs& pairs,
                           std::initializer_list<std::string_view> said) {
    return throws_with([&] { fused.store.set_low_rank(parameter, pairs); }, said);
  };
  const LowRankPairs k = pair_for({{4, 6, 1.0}}, 3, 1);
  EXPECT_TRUE(refused("qkv.bias", k, {"qkv.bias: no linear layer has this parameter"}));
  EXPECT_TRUE(refused("o.weight", k, {"o.weight: no linear layer"}));
  EXPECT_TRUE(refused("qkv.weight", pair_for({{4, 6, 1.0}}, 4, 1),
                      {"qkv.weight", "A of low-rank pairs", "[2, 4]"}));
  LowRankPairs wide = k;
  wide.rows = {{3, 6, 1.0}};
  EXPECT_TRUE(refused("qkv.weight", wide, {"qkv.weight", "B of low-rank pairs", "[2, 2]"}));
  wide.rows = {{7, 9, 1.0}};
  EXPECT_TRUE(refused("qkv.weight", wide, {"qkv.weight", "rows 7 to 9"}));
}

/// All of a block's own parameters are frozen and its input is a constant: only what the block says
/// of its pairs makes recomputation record it.
TEST(Linear, PairsOfARecomputedBlockAreTrained) {
  const BlockArgs args{.hidden_size = 4,
                       .heads = 2,
                       .kv_heads = 1,
                       .head_dim = 2,
                       .intermediate_size = 6,
                       .initializer_range = 0.5,
                       .residual = {}};
  Tensor want;
  for (const bool recomputes : {false, true}) {
    ParameterStore store(1);
    const TransformerBlock block(store, "b.", 0, args);
    store.freeze({"b."});
    const LowRankPairs pair = pair_for({{6, 8, 0.5}}, 4, 20);  // of v
    store.set_low_rank("b.self_attn.qkv_proj.weight", pair);
    ForwardContext context;
    context.recompute_blocks = recomputes;
    const Streams x{Variable(random_tensor({1, 3, 4}, 2))};
    block.forward(x, {}, context).graph.backward(random_tensor({1, 3, 4}, 3));
    ASSERT_TRUE(pair.a.grad().defined()) << recomputes;
    if (!recomputes)
      want = pair.a.grad();
    else
      EXPECT_TRUE(near(pair.a.grad(), want, 0));
  }
}

}  // namespace
}  // namespace lectern
