#include "autograd/ops/linear.h"
#include "autograd/ops/matmul.h"
#include "autograd/variable.h"
#include "tests/testing.h"

#include <vector>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;

using Variables = std::vector<Variable>;

/// Two layers and a product with themselves, so that gradients depend on the values within.
struct Network {
  Variable first{random_tensor({6, 4}, 1, DType::f64), true};
  Variable bias{random_tensor({6}, 2, DType::f64), true};
  Variable second{random_tensor({4, 6}, 3, DType::f64), true};
  int runs = 0;

  Variables forward(const Variables& in) {
    ++runs;
    const Variable hidden = linear(in[0], first, bias);
    const Variable out = linear(hidden, second);
    return {matmul(out, in[1]), matmul(hidden, hidden, {false, true})};
  }
  Variables parameters() const { return {first, bias, second}; }
};

struct Result {
  std::vector<Tensor> tensors;
  int runs;
};

/// Values and all gradients with the network run plainly or as a recomputed segment.
Result run(bool recomputed, bool use_second_output, bool freeze_input) {
  Network network;
  const Variable x(random_tensor({3, 4}, 4, DType::f64), !freeze_input);
  const Variable z(random_tensor({4, 2}, 5, DType::f64), true);
  const auto segment = [&](const Variables& in) { return network.forward(in); };
  // Inputs that are results themselves, and used again outside the segment.
  const Variable y = matmul(x, matmul(z, z, {false, true}));
  const Variables out =
      recomputed ? recompute(segment, {y, z}, network.parameters()) : segment({y, z});
  Variable last = matmul(out[0], out[0], {false, true});
  if (use_second_output) last = matmul(last, out[1]);
  matmul(last, matmul(y, y, {false, true})).backward(random_tensor({3, 3}, 6, DType::f64));
  Result result{{out[0].value(), out[1].value(), z.grad()}, network.runs};
  if (!freeze_input) result.tensors.push_back(x.grad());
  for (const Variable& p : network.parameters()) result.tensors.push_back(p.grad());
  return result;
}

TEST(Recompute, EqualsPlain) {
  for (const bool second : {false, true})
    for (const bool frozen : {false, true}) {
      const Result plain = run(false, second, frozen), again = run(true, second, frozen);
      EXPECT_EQ(plain.runs, 1);
      EXPECT_EQ(again.runs, 2) << "once forward, once more for backward";
      for (std::size_t i = 0; i < plain.tensors.size(); ++i)
        EXPECT_TRUE(near(again.tensors[i], plain.tensors[i], 1e-12))
            << "tensor " << i << " second " << second << " frozen " << frozen;
    }
}

TEST(Recompute, ParameterGradientsFlowWhenNoInputNeedsOne) {
  Network network;
  const Variable x(random_tensor({3, 4}, 4, DType::f64)), z(random_tensor({4, 2}, 5, DType::f64));
  const auto out = recompute([&](const Variables& in) { return network.forward(in); }, {x, z},
                             network.parameters());
  EXPECT_TRUE(out[0].requires_grad());
  out[0].backward(random_tensor({3, 2}, 6, DType::f64));
  EXPECT_TRUE(network.first.grad().defined());
}

TEST(Recompute, Nests) {
  const Variable w(random_tensor({4, 4}, 1, DType::f64), true);
  const auto gradient = [&](bool recomputed) {
    const Variable x(random_tensor({3, 4}, 2, DType::f64), true);
    const auto inner = [&](const Variables& in) { return Variables{linear(in[0], w)}; };
    const auto outer = [&](const Variables& in) {
      const Variables once = recomputed ? recompute(inner, in, {w}) : inner(in);
      return recomputed ? recompute(inner, once, {w}) : inner(once);
    };
    Variable(w).clear_grad();
    const Variables out = recomputed ? recompute(outer, {x}, {w}) : outer({x});
    out[0].backward(random_tensor({3, 4}, 3, DType::f64));
    return std::vector<Tensor>{x.grad(), w.grad()};
  };
  const auto plain = gradient(false), again = gradient(true);
  EXPECT_TRUE(near(again[0], plain[0], 1e-12));
  EXPECT_TRUE(near(again[1], plain[1], 1e-12));
}

/// A weight that is used again without a graph gets a packed copy, and products with it another
/// order of adding. The first run of a segment must not, however often the segment is used.
TEST(Recompute, BothRunsAreThoseOfTrainingToTheBit) {
  const Variable weight(random_tensor({64, 700}, 1), true);
  const Variable x(random_tensor({33, 700}, 2), true);
  const auto segment = [&](const Variables& in) { return Variables{linear(in[0], weight)}; };
  const Tensor plain = segment({x})[0].value();
  for (int use = 0; use < 4; ++use)
    EXPECT_TRUE(near(recompute(segment, {x}, {weight})[0].value(), plain, 0)) << use;
  const NoGrad off;
  bool differs = false;
  for (int use = 0; use < 4; ++use) differs |= !near(segment({x})[0].value(), plain, 0);
  if (!differs) GTEST_SKIP() << "the packed product adds in the same order here";
}

TEST(Recompute, WithoutGradientsRunsOnce) {
  Network network;
  const NoGrad off;
  const Variable x(random_tensor({3, 4}, 4, DType::f64)), z(random_tensor({4, 2}, 5, DType::f64));
  recompute([&](const Variables& in) { return network.forward(in); }, {x, z}, {});
  EXPECT_EQ(network.runs, 1);
}

TEST(Recompute, GradientModeSurvivesAThrowingSegment) {
  const Variable x(random_tensor({3, 4}, 1, DType::f64), true);
  int runs = 0;
  const auto out = recompute(
      [&](const Variables& in) {
        if (++runs == 2) fail<Error>("segment failed");
        return Variables{matmul(in[0], in[0], {false, true})};
      },
      {x}, {});
  EXPECT_TRUE(testing::throws_with(
      [&] {
        out[0].backward(Tensor::zeros({3, 3}, DType::f64));
      },
      {"segment failed"}));
  EXPECT_TRUE(grad_enabled());
}

}  // namespace
}  // namespace lectern
