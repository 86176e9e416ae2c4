// Checks that every differentiable operation must pass, whatever it computes: its gradient against
// finite differences, f32 against f64, and the same bits on any number of threads.
#pragma once

#include "autograd/gradient_check.h"
#include "core/parallel.h"
#include "tests/testing.h"

#include <cstring>
#include <functional>
#include <vector>

namespace lectern::testing {

using Operation = std::function<Variable(const std::vector<Variable>&)>;

/// Output first, then the gradient of each input under a fixed random cotangent.
inline std::vector<Tensor> output_and_gradients(const Operation& f,
                                                const std::vector<Tensor>& inputs) {
  std::vector<Variable> leaves;
  for (const Tensor& input : inputs) leaves.emplace_back(input, true);
  const Variable out = f(leaves);
  std::vector<Tensor> results{out.value()};
  out.backward(random_tensor(out.shape(), 99).to(out.dtype()));
  for (const Variable& leaf : leaves) results.push_back(leaf.grad());
  return results;
}

/// Finite differences in f64.
inline ::testing::AssertionResult gradient_holds(const Operation& f,
                                                 const std::vector<Tensor>& inputs,
                                                 const GradientCheckOptions& options = {}) {
  const GradientCheckResult result = check_gradient(f, inputs, options);
  return result.passed ? ::testing::AssertionSuccess()
                       : ::testing::AssertionFailure() << result.message;
}

/// Output and gradients of f32 inputs against those of the same numbers in f64; `bound` as in
/// near().
inline ::testing::AssertionResult single_matches_double(const Operation& f,
                                                        const std::vector<Tensor>& inputs,
                                                        double bound) {
  std::vector<Tensor> wide;
  for (const Tensor& input : inputs) wide.push_back(input.to(DType::f64));
  const auto got = output_and_gradients(f, inputs), want = output_and_gradients(f, wide);
  for (std::size_t i = 0; i < got.size(); ++i)
    if (auto result = near(got[i], want[i], bound); !result)
      return result << (i == 0 ? " (output)"
                               : " (gradient of input " + std::to_string(i - 1) + ")");
  return ::testing::AssertionSuccess();
}

/// Output and gradients are the same bits on 1, 2 and 5 threads.
inline ::testing::AssertionResult threads_do_not_matter(const Operation& f,
                                                        const std::vector<Tensor>& inputs) {
  const int before = thread_count();
  set_thread_count(1);
  const auto want = output_and_gradients(f, inputs);
  for (const int threads : {2, 5}) {
    set_thread_count(threads);
    const auto got = output_and_gradients(f, inputs);
    set_thread_count(before);
    for (std::size_t i = 0; i < got.size(); ++i) {
      const Tensor a = got[i].contiguous(), b = want[i].contiguous();
      if (std::memcmp(a.raw(), b.raw(), b.bytes()) != 0)
        return ::testing::AssertionFailure()
               << "result " << i << " differs on " << threads << " threads";
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace lectern::testing
