// A network of two layers learns which of two interleaved spirals a point lies on.
//   y = W2 gelu(W1 x + b1) + b2,   loss = cross entropy(y, spiral)
#include "autograd/ops/cross_entropy.h"
#include "autograd/ops/elementwise.h"
#include "autograd/ops/linear.h"
#include "core/random.h"
#include "nn/optim/optimizer.h"
#include "nn/optim/schedule.h"

#include <cmath>
#include <cstdio>

using namespace lectern;

int main() {
  constexpr std::int64_t kPoints = 400, kHidden = 64, kSteps = 400;
  const Tensor points = Tensor::empty({kPoints, 2}), labels = Tensor::empty({kPoints}, DType::i32);
  for (std::int64_t i = 0; i < kPoints; ++i) {
    const auto spiral = static_cast<std::int32_t>(i % 2);
    const double turn = 0.5 + 6.0 * double(i) / kPoints;
    points.data<float>()[2 * i] = static_cast<float>(0.3 * turn * std::cos(turn + M_PI * spiral));
    points.data<float>()[2 * i + 1] = static_cast<float>(0.3 * turn * std::sin(turn + M_PI * spiral));
    labels.data<std::int32_t>()[i] = spiral;
  }

  // Parameters are leaves that require a gradient. A tensor's random numbers depend on the seed and
  // on the name of their stream alone.
  const auto weight = [](const char* name, const Shape& shape, double deviation) {
    const Tensor value = Tensor::empty(shape);
    Random(/*seed=*/1, name).fill_normal(value, 0.0, deviation);
    return Variable(value, /*requires_grad=*/true);
  };
  const Variable w1 = weight("w1", {kHidden, 2}, 1.0), w2 = weight("w2", {2, kHidden}, 0.1);
  const Variable b1(Tensor::zeros({kHidden}), true), b2(Tensor::zeros({2}), true);
  AdamW optimizer({.learning_rate = 0.02, .weight_decay = 0.01});
  optimizer.add_group("weights", {{"w1", w1}, {"w2", w2}});
  optimizer.add_group("biases", {{"b1", b1}, {"b2", b2}}, /*weight_decay=*/0.0);
  const ScheduleArgs schedule{.peak = 0.02, .warmup_steps = 20, .total_steps = kSteps};

  double last = 0;
  for (std::int64_t step = 0; step < kSteps; ++step) {
    const Variable hidden = gelu(linear(Variable(points), w1, b1));
    const Variable loss = cross_entropy(linear(hidden, w2, b2), labels);
    loss.backward();
    optimizer.step(learning_rate(schedule, step));
    optimizer.clear_gradients();
    last = loss.value().item();
    if (step % 50 == 0) std::printf("step %3d  loss %.4f\n", static_cast<int>(step), last);
  }
  std::printf("final loss %.4f\n", last);
  return last < 0.05 ? 0 : 1;
}
