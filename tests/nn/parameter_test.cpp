// The names under which checkpoints know a model's weights, and what freezing does to them.
#include "nn/parameter.h"

#include "tests/testing.h"

namespace lectern {
namespace {

using testing::throws_with;

std::vector<std::string> names(const std::vector<std::pair<std::string, Tensor>>& tensors) {
  std::vector<std::string> out;
  for (const auto& [name, tensor] : tensors) out.push_back(name);
  return out;
}

/// Query and key in one matrix, two experts of gate and up in a stack, and a norm.
ParameterStore example(std::uint64_t seed = 1) {
  ParameterStore store(seed);
  store.add("a.norm", {3}, Initialiser::ones());
  store.add("a.qk", {5, 3}, Initialiser::normal(1), {{"a.q", 0, 3}, {"a.k", 3, 5}});
  store.add(
      "b.experts", {2, 4, 3}, Initialiser::normal(1),
      {{"b.0.gate", 0, 2, 0}, {"b.0.up", 2, 4, 0}, {"b.1.gate", 0, 2, 1}, {"b.1.up", 2, 4, 1}});
  return store;
}

TEST(Parameter, PartsAreViewsOfTheWhole) {
  ParameterStore store = example();
  EXPECT_EQ(names(store.state()), (std::vector<std::string>{"a.k", "a.norm", "a.q", "b.0.gate",
                                                            "b.0.up", "b.1.gate", "b.1.up"}));
  EXPECT_EQ(store.parameter_count(), 3 + 15 + 24);
  const Parameter& stack = store.parameters()[2];
  const Tensor whole = stack.variable.value();
  const Tensor up = stack.part_of(whole, stack.parts[3]);
  EXPECT_EQ(up.shape(), (Shape{2, 3}));
  // Row 2 of matrix 1 is element 12 + 6.
  EXPECT_EQ(up.data<float>(), whole.data<float>() + 18);
  for (const auto& [name, tensor] : store.state())
    if (name == "b.1.up") tensor.data<float>()[4] = 42.0f;
  EXPECT_EQ(whole.data<float>()[22], 42.0f);
  EXPECT_TRUE(throws_with(
      [&] {
        stack.part_of(Tensor::zeros({2, 4, 2}), stack.parts[0]);
      },
      {"b.experts", "[2, 4, 3]", "[2, 4, 2]"}));
}

TEST(Parameter, GradientsHaveTheNamesOfTheParts) {
  ParameterStore store = example();
  Tensor grad = Tensor::zeros({5, 3});
  for (int i = 0; i < 15; ++i) grad.data<float>()[i] = static_cast<float>(i);
  Variable(store.parameters()[1].variable).set_grad(grad);
  const auto gradients = store.gradients();
  EXPECT_EQ(names(gradients), names(store.state()));
  for (const auto& [name, tensor] : gradients) {
    const Tensor want = name == "a.q"   ? grad.slice(0, 0, 3)
                        : name == "a.k" ? grad.slice(0, 3, 5)
                                        : Tensor::zeros(tensor.shape());
    EXPECT_TRUE(testing::near(tensor, want, 0)) << name;
  }
  store.clear_gradients();
  EXPECT_FALSE(store.parameters()[1].variable.grad().defined());
}

TEST(Parameter, PartsMustCoverTheShapeInOrder) {
  const auto refused = [](const Shape& shape, std::vector<ParameterPart> parts) {
    return throws_with(
        [&] { ParameterStore(0).add("w", shape, Initialiser::zeros(), std::move(parts)); },
        {"w: parts must cover", to_string(shape)});
  };
  EXPECT_TRUE(refused({4, 2}, {}));
  EXPECT_TRUE(refused({4, 2}, {{"a", 0, 3}}));
  EXPECT_TRUE(refused({4, 2}, {{"a", 0, 2}, {"b", 0, 2}}));
  EXPECT_TRUE(refused({4, 2}, {{"a", 0, 3}, {"b", 2, 4}}));
  EXPECT_TRUE(refused({4, 2}, {{"a", 0, 5}}));
  EXPECT_TRUE(refused({2, 4, 2}, {{"a", 0, 4, 0}}));
  EXPECT_TRUE(refused({2, 4, 2}, {{"a", 0, 4, 0}, {"b", 0, 4, 0}}));
  EXPECT_TRUE(refused({4, 2}, {{"a", 0, 4, 0}}));
}

TEST(Parameter, FreezingIsByPrefixAndReplacesTheOldChoice) {
  ParameterStore store = example();
  const auto trained = [&] {
    std::vector<std::string> out;
    for (const auto& [name, variable] : store.trainable()) out.push_back(name);
    return out;
  };
  EXPECT_EQ(trained(), (std::vector<std::string>{"a.norm", "a.qk", "b.experts"}));
  store.freeze({"a."});
  EXPECT_EQ(trained(), (std::vector<std::string>{"b.experts"}));
  store.freeze({"b.", "a.norm"});
  EXPECT_EQ(trained(), (std::vector<std::string>{"a.qk"}));
  EXPECT_TRUE(throws_with(
      [&] {
        store.freeze({"a.", "c."});
      },
      {"freeze: no parameter's name starts with c."}));
  EXPECT_EQ(trained(), (std::vector<std::string>{"a.qk"})) << "a refused choice changed nothing";
  store.freeze({});
  EXPECT_EQ(trained().size(), 3u);
}

TEST(Parameter, ValuesDependOnSeedAndNameOnly) {
  const auto value = [](const ParameterStore& store, const std::string& wanted) {
    for (const auto& [name, tensor] : store.state())
      if (name == wanted) return tensor.clone();
    return Tensor();
  };
  EXPECT_TRUE(testing::near(value(example(1), "a.k"), value(example(1), "a.k"), 0));
  EXPECT_FALSE(testing::near(value(example(1), "a.k"), value(example(2), "a.k"), 0.01));
  // Alone, in another order, and not fused.
  ParameterStore other(1);
  other.add("z", {7}, Initialiser::normal(1));
  other.add("a.k", {2, 3}, Initialiser::normal(1));
  EXPECT_TRUE(testing::near(value(other, "a.k"), value(example(1), "a.k"), 0));
}

TEST(Parameter, AStackIsSharedOutAndTheRestIsElsewhere) {
  const std::vector<ParameterPart> parts = {
      {"0.gate", 0, 1, 0}, {"0.up", 1, 2, 0}, {"1.gate", 0, 1, 1}, {"1.up", 1, 2, 1}};
  ParameterStore all(1);
  all.add_linear("stack", {2, 2, 3}, Initialiser::normal(1), parts);
  const Tensor whole = all.parameters()[0].variable.value();
  for (std::int64_t rank = 0; rank < 2; ++rank) {
    ParameterStore store(1);
    store.add_linear("stack", {2, 2, 3}, Initialiser::normal(1), parts, {rank, 2});
    const Parameter& share = store.parameters()[0];
    EXPECT_EQ(share.variable.shape(), (Shape{1, 2, 3}));
    EXPECT_EQ(share.whole_shape(), (Shape{2, 2, 3}));
    EXPECT_TRUE(testing::near(share.variable.value(), share.share_of(whole), 0));
    EXPECT_EQ(names(store.state()), rank == 0 ? (std::vector<std::string>{"0.gate", "0.up"})
                                              : (std::vector<std::string>{"1.gate", "1.up"}));
    for (const ParameterPart& part : parts)
      EXPECT_EQ(store.is_elsewhere(part.name), part.stack != rank) << part.name;
    EXPECT_FALSE(store.is_elsewhere("stack"));
    EXPECT_FALSE(store.is_elsewhere("2.gate"));
  }
  EXPECT_TRUE(throws_with(
      [&] {
        ParameterStore(1).add_linear("stack", {2, 2, 3}, Initialiser::zeros(), parts, {0, 3});
      },
      {"stack: 2 matrices do not divide by 3 ranks"}));
}

TEST(Parameter, WhatAnotherProcessOwnsIsElsewhere) {
  ParameterStore store(1, DType::f32, ParameterValues::initialised,
                       [](const std::string& name) { return name.starts_with("a."); });
  EXPECT_TRUE(store.add("a.norm", {3}, Initialiser::ones()).defined());
  EXPECT_FALSE(
      store.add("b.qk", {5, 3}, Initialiser::zeros(), {{"b.q", 0, 3}, {"b.k", 3, 5}}).defined());
  EXPECT_EQ(store.parameters().size(), 1u);
  for (const char* name : {"b.qk", "b.q", "b.k"}) EXPECT_TRUE(store.is_elsewhere(name)) << name;
  for (const char* name : {"a.norm", "b.v", "c"}) EXPECT_FALSE(store.is_elsewhere(name)) << name;
  store.freeze({"b."});  // it is known here that there is such a parameter
  EXPECT_EQ(store.trainable().size(), 1u);
}

TEST(Parameter, FilesKeepThePartsOfAParameterTogether) {
  EXPECT_EQ(names(example().file_order_state()),
            (std::vector<std::string>{"a.norm", "a.q", "a.k", "b.0.gate", "b.0.up", "b.1.gate",
                                      "b.1.up"}));
}

TEST(Parameter, BFloat16StoresKeepOnlyMatricesShort) {
  ParameterStore half(3, DType::bf16), full(3);
  for (ParameterStore* store : {&half, &full}) {
    store->add("norm", {4}, Initialiser::ones());
    store->add_matrix("qk", {6, 4}, Initialiser::normal(1), {{"q", 0, 4}, {"k", 4, 6}});
    store->add("table", {2, 4}, Initialiser::normal(1));
  }
  EXPECT_EQ(half.parameters()[0].variable.dtype(), DType::f32);
  EXPECT_EQ(half.parameters()[1].variable.dtype(), DType::bf16);
  EXPECT_EQ(half.parameters()[2].variable.dtype(), DType::f32);
  EXPECT_EQ(full.parameters()[1].variable.dtype(), DType::f32);
  for (int i = 0; i < 3; ++i) {
    const Tensor want = full.parameters()[i].variable.value();
    EXPECT_TRUE(testing::near(half.parameters()[i].variable.value(),
                              i == 1 ? want.to(DType::bf16) : want, 0))
        << "the same draws, rounded";
  }
}

TEST(Parameter, AbsentValuesHaveShapesAndNoMemory) {
  ParameterStore store(1, DType::f32, ParameterValues::absent);
  store.add_matrix("huge", {std::int64_t{1} << 20, std::int64_t{1} << 18}, Initialiser::normal(1),
                   {{"a", 0, 1 << 19}, {"b", 1 << 19, 1 << 20}});
  EXPECT_EQ(store.parameter_count(), std::int64_t{1} << 38);
  EXPECT_EQ(store.parameters()[0].variable.value().raw(), nullptr);
  EXPECT_EQ(store.file_order_state()[1].second.shape(), (Shape{1 << 19, 1 << 18}));
}

}  // namespace
}  // namespace lectern
