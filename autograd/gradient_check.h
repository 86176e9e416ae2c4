// Gradient check: backward() against central finite differences in fp64.
#pragma once

#include "autograd/variable.h"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace lectern {

struct GradientCheckOptions {
  std::uint64_t seed = 1;
  /// Inputs with at most this many elements are checked element by element; larger ones along
  /// `directions` random directions.
  std::int64_t full_limit = 256;
  int directions = 8;
  /// Bound on |numeric - analytic| / max(1, |numeric|, |analytic|).
  double bound = 1e-6;
};

struct GradientCheckResult {
  bool passed = false;
  double worst = 0;     ///< largest relative difference seen
  std::string message;  ///< input, element, both derivatives; for test output
};

/// Checks d<f(inputs), cotangent>/d(inputs) where the cotangent is random normal and fixed, never
/// ones: with a sum, an operation whose outputs add up to a constant (softmax, norms) would pass
/// with a gradient of zero. `f` gets leaves that hold the f64 tensors of `inputs` and must not keep
/// state; outputs may be several. Step: cbrt(epsilon) * max(1, |x|).
GradientCheckResult check_gradients(
    const std::function<std::vector<Variable>(const std::vector<Variable>&)>& f,
    const std::vector<Tensor>& inputs, const GradientCheckOptions& options = {});

/// The same for one output.
GradientCheckResult check_gradient(const std::function<Variable(const std::vector<Variable>&)>& f,
                                   const std::vector<Tensor>& inputs,
                                   const GradientCheckOptions& options = {});

}  // namespace lectern
