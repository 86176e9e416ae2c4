#include "nn/optim/optimizer.h"

#include "core/io/safetensors.h"
#include "core/parallel.h"
#include "tests/testing.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

SafetensorsFile golden() {
  return SafetensorsFile::open(testing::source_folder() / "tests/golden/adamw.safetensors");
}

/// The three parameters of tests/golden/adamw.py.
NamedParameters golden_parameters(const SafetensorsFile& file) {
  NamedParameters out;
  for (const std::string name : {"w", "u", "b"})
    out.emplace_back(name, Variable(file.get(name + ".start").clone(), true));
  return out;
}

void set_gradients(const SafetensorsFile& file, int step, NamedParameters& parameters) {
  for (auto& [name, parameter] : parameters) {
    const std::string key = fmt::format("step{}.{}.grad", step, name);
    parameter.clear_grad();
    if (file.contains(key)) parameter.set_grad(file.get(key).clone());
  }
}

AdamW golden_optimizer(const NamedParameters& parameters) {
  AdamW optimizer;
  optimizer.add_group("decayed", {parameters[0], parameters[1]}, 0.1);
  optimizer.add_group("not decayed", {parameters[2]}, 0.0);
  return optimizer;
}

void golden_step(const SafetensorsFile& file, int step, NamedParameters& parameters,
                 AdamW& optimizer) {
  set_gradients(file, step, parameters);
  const double norm = gradient_norm(parameters);
  EXPECT_NEAR(norm, file.get(fmt::format("step{}.norm", step)).item(), 1e-5);
  optimizer.step(file.get(fmt::format("step{}.lr", step)).item(), clip_scale(norm, 1.0));
  for (const auto& [name, parameter] : parameters)
    EXPECT_TRUE(near(parameter.value(), file.get(fmt::format("step{}.{}.value", step, name)), 1e-6))
        << name << " after step " << step;
}

TEST(AdamW, FollowsTorchStepByStep) {
  const SafetensorsFile file = golden();
  NamedParameters parameters = golden_parameters(file);
  AdamW optimizer = golden_optimizer(parameters);
  for (int step = 0; step < 5; ++step) golden_step(file, step, parameters, optimizer);
  for (const auto& [name, tensor] : optimizer.state())
    EXPECT_TRUE(near(tensor, file.get(name), 1e-6)) << name;
  for (const auto& [name, steps] : optimizer.step_counts())
    EXPECT_EQ(static_cast<double>(steps), file.get(name + ".steps").item()) << name;
  EXPECT_EQ(optimizer.step_counts().at("u"), 3);
  EXPECT_EQ(optimizer.state().size(), 6u);
}

TEST(AdamW, ResumesFromItsStateBitForBit) {
  const SafetensorsFile file = golden();
  NamedParameters one = golden_parameters(file);
  AdamW first = golden_optimizer(one);
  golden_step(file, 0, one, first);  // u has no state yet
  NamedParameters two;
  for (const auto& [name, parameter] : one)
    two.emplace_back(name, Variable(parameter.value().clone(), true));
  AdamW second = golden_optimizer(two);
  second.load_state(first.state(), first.step_counts());
  EXPECT_EQ(second.step_counts(), first.step_counts());
  for (int step = 1; step < 5; ++step) {
    golden_step(file, step, one, first);
    golden_step(file, step, two, second);
  }
  for (std::size_t i = 0; i < one.size(); ++i)
    EXPECT_EQ(0, std::memcmp(one[i].second.value().raw(), two[i].second.value().raw(),
                             one[i].second.value().bytes()));
}

TEST(AdamW, SkipsWithoutGradientButDecaysWithAZeroOne) {
  Variable skipped(Tensor::full({2}, 1.0), true), zero(Tensor::full({2}, 1.0), true);
  AdamW optimizer({.weight_decay = 0.5});
  optimizer.add_group("all", {{"skipped", skipped}, {"zero", zero}});
  zero.set_grad(Tensor::zeros({2}));
  optimizer.step(0.1);
  EXPECT_TRUE(near(skipped.value(), Tensor::full({2}, 1.0), 0));
  EXPECT_TRUE(near(zero.value(), Tensor::full({2}, 0.95), 1e-7));
  EXPECT_FALSE(optimizer.step_counts().contains("skipped"));
  EXPECT_EQ(optimizer.state_bytes(), 16);
  optimizer.clear_gradients();
  EXPECT_FALSE(zero.grad().defined());
}

TEST(AdamW, TellsCachesThatTheValueChanged) {
  Variable p(Tensor::zeros({2}), true);
  AdamW optimizer;
  optimizer.add_group("all", {{"p", p}});
  const auto version = p.value().storage()->version();
  optimizer.step();
  EXPECT_EQ(p.value().storage()->version(), version);  // no gradient, no change
  p.set_grad(Tensor::zeros({2}));
  optimizer.step();
  EXPECT_GT(p.value().storage()->version(), version);
}

TEST(AdamW, SameBitsForAnyNumberOfThreads) {
  const int before = thread_count();
  std::vector<Tensor> values;
  for (const int threads : {1, 2, 3}) {
    set_thread_count(threads);
    Variable p(random_tensor({150001}, 1), true);
    AdamW optimizer;
    optimizer.add_group("all", {{"p", p}});
    for (std::uint64_t step = 0; step < 3; ++step) {
      p.set_grad(random_tensor({150001}, 2 + step));
      optimizer.step(1e-2, clip_scale(gradient_norm({{"p", p}}), 1.0));
    }
    values.push_back(p.value());
  }
  set_thread_count(before);
  for (const Tensor& value : values)
    EXPECT_EQ(0, std::memcmp(value.raw(), values[0].raw(), value.bytes()));
}

TEST(GradientNorm, IsOverTheGradientsThereAre) {
  Variable a(Tensor::zeros({2}), true), b(Tensor::zeros({1}), true), c(Tensor::zeros({1}), true);
  EXPECT_EQ(gradient_norm({{"a", a}, {"b", b}}), 0.0);
  a.set_grad(Tensor::from<float>({3.f, 0.f}, {2}));
  b.set_grad(Tensor::from<float>({4.f}, {1}));
  EXPECT_DOUBLE_EQ(gradient_norm({{"a", a}, {"b", b}, {"c", c}}), 5.0);
  EXPECT_DOUBLE_EQ(clip_scale(5.0, 1.0), 1.0 / (5.0 + 1e-6));
  EXPECT_EQ(clip_scale(0.5, 1.0), 1.0);
}

TEST(FirstNonFinite, NamesTheParameter) {
  Variable a(Tensor::zeros({2}), true), b(Tensor::zeros({2}), true), c(Tensor::zeros({2}), true);
  const NamedParameters all = {{"a", a}, {"layer.b", b}, {"c", c}};
  a.set_grad(Tensor::full({2}, 3e38));
  EXPECT_FALSE(first_non_finite(all).has_value());
  EXPECT_TRUE(std::isfinite(gradient_norm(all)));
  c.set_grad(Tensor::full({2}, NAN));
  b.set_grad(Tensor::from<float>({0.f, std::numeric_limits<float>::infinity()}, {2}));
  EXPECT_EQ(first_non_finite(all), "layer.b");
}

TEST(AdamW, RefusesBadInput) {
  EXPECT_TRUE(throws_with([] { AdamW({.learning_rate = -1}); },
                          {"AdamW: learning_rate must be >= 0, got -1"}));
  EXPECT_TRUE(throws_with([] { AdamW({.beta1 = 1}); }, {"AdamW: beta1 must be in [0, 1), got 1"}));
  EXPECT_TRUE(throws_with([] { AdamW({.beta2 = NAN}); }, {"AdamW: beta2", "got nan"}));
  EXPECT_TRUE(throws_with([] { AdamW({.epsilon = 0}); }, {"AdamW: epsilon must be > 0"}));
  const Variable p(Tensor::zeros({2}), true), q(Tensor::zeros({2}), true);
  AdamW optimizer;
  optimizer.add_group("one", {{"p", p}});
  EXPECT_TRUE(throws_with(
      [&] {
        optimizer.add_group("two", {{"p", q}});
      },
      {"AdamW: group two: parameter p must have a name of its own"}));
  EXPECT_TRUE(throws_with(
      [&] {
        optimizer.add_group("two", {{"q", p}});
      },
      {"parameter q must be given once"}));
  EXPECT_TRUE(throws_with(
      [&] {
        optimizer.add_group("two", {{"h", Variable(Tensor::zeros({2}, DType::bf16))}});
      },
      {"parameter h must be f32 or f64", "bf16"}));
  EXPECT_TRUE(throws_with(
      [&] {
        optimizer.add_group("two", {{"q", q}}, -0.1);
      },
      {"AdamW: weight_decay must be >= 0"}));
  EXPECT_EQ(optimizer.parameters().size(), 1u);
  EXPECT_TRUE(throws_with([&] { optimizer.step(NAN); }, {"AdamW: learning_rate", "nan"}));
  EXPECT_TRUE(throws_with([&] { optimizer.step(0.1, NAN); }, {"AdamW: gradient_scale", "nan"}));
  const Tensor two = Tensor::zeros({2});
  EXPECT_TRUE(throws_with(
      [&] {
        optimizer.load_state({}, {{"x", 1}});
      },
      {"AdamW: state must be of known parameters, got x"}));
  EXPECT_TRUE(throws_with(
      [&] {
        optimizer.load_state({{"p.exp_avg", two}}, {{"p", 1}});
      },
      {"AdamW: state must have a tensor p.exp_avg_sq"}));
  EXPECT_TRUE(throws_with(
      [&] {
        optimizer.load_state({{"p.exp_avg", two}, {"p.exp_avg_sq", Tensor::zeros({3})}},
                             {{"p", 1}});
      },
      {"AdamW: p.exp_avg_sq must be [2]"}));
  EXPECT_TRUE(throws_with(
      [&] {
        optimizer.load_state({{"p.exp_avg", two}}, {});
      },
      {"AdamW: state has a tensor p.exp_avg"}));
}

}  // namespace
}  // namespace lectern
