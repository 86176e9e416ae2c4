// An operation of one's own, softplus(x) = log(1 + exp(x)), with its gradient
// d softplus / dx = sigmoid(x), checked against central finite differences in fp64.
#include "autograd/gradient_check.h"
#include "autograd/variable.h"
#include "core/parallel.h"

#include <cmath>
#include <cstdio>

using namespace lectern;

// f(x, g) for every element of x and, where it is given, of a second tensor of its shape.
template <typename T, typename F>
static Tensor map(const Tensor& x, const Tensor& g, F f) {
  const Tensor out = Tensor::empty_like(x);
  parallel_for(x.numel(), /*grain=*/4096, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) out.data<T>()[i] = f(x.data<T>()[i], g.data<T>()[i]);
  });
  return out;
}

// x f32 or f64, contiguous, of any shape.
static Variable softplus(const Variable& x) {
  // max(x, 0) + log1p(exp(-|x|)): exp never overflows.
  const auto forward = [](auto v, auto) {
    return std::max(v, decltype(v)(0)) + std::log1p(std::exp(-std::abs(v)));
  };
  const auto backward = [](auto v, auto g) { return g / (1 + std::exp(-v)); };
  const bool f64 = x.dtype() == DType::f64;
  const Tensor in = x.value();
  const Tensor out = f64 ? map<double>(in, in, forward) : map<float>(in, in, forward);
  // The closure turns the gradient of the output into those of the inputs, in their order. What it
  // captures lives until backward() has run it.
  return record("softplus", out, {x}, [in, f64, backward](const Tensor& grad) {
    const Tensor grad_x = f64 ? map<double>(in, grad, backward) : map<float>(in, grad, backward);
    return std::vector<Tensor>{grad_x};
  });
}

int main() {
  const Tensor x = Tensor::from(std::vector<double>{-30, -2, -0.5, 0, 0.1, 1, 4, 50}, {2, 4});
  const auto checked = check_gradient(
      [](const std::vector<Variable>& inputs) { return softplus(inputs[0]); }, {x});
  std::printf("softplus: largest relative difference %.1e: %s\n", checked.worst,
              checked.passed ? "passed" : checked.message.c_str());

  // A gradient that is wrong is found: this one forgets the factor of the sigmoid.
  const auto wrong = check_gradient(
      [](const std::vector<Variable>& inputs) {
        const Variable& v = inputs[0];
        return record("wrong", softplus(v).value(), {v}, [](const Tensor& grad) {
          return std::vector<Tensor>{grad};
        });
      },
      {x});
  std::printf("a wrong gradient: %s\n", wrong.passed ? "not found" : "found");
  return checked.passed && !wrong.passed ? 0 : 1;
}
