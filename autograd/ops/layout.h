// Views and copies with gradient. Errors: core/ops/layout.h. None of them saves a tensor.
#pragma once

#include "autograd/variable.h"

#include <cstdint>
#include <vector>

namespace lectern {

/// Same elements in another shape; one size may be -1. No copy of a contiguous value.
Variable view(const Variable& x, const Shape& shape);

/// Rows begin..end-1 of a dimension (negative: from the end), contiguous. Gradient: zeros
/// elsewhere.
Variable slice(const Variable& x, int dim, std::int64_t begin, std::int64_t end);

/// Joined along a dimension (negative: from the end).
Variable concat(const std::vector<Variable>& tensors, int dim);

/// x [...] -> [n, ...], n copies. The gradient is the sum over n, in order.
Variable repeat_leading(const Variable& x, std::int64_t n);

/// Output dimension i is dimension dims[i] of x; a contiguous copy.
Variable permute(const Variable& x, const std::vector<int>& dims);

}  // namespace lectern
