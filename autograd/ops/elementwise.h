// Elementwise operations with gradient. Formulas and errors: core/ops/elementwise.h.
#pragma once

#include "autograd/variable.h"

namespace lectern {

/// a + b; b's shape, leading ones dropped, is a suffix of a's. Its gradient is the sum over the
/// dimensions it lacks, in a fixed order. Saves nothing.
Variable add(const Variable& a, const Variable& b);
/// a * b, same shape. Saves the factor of each input that requires a gradient.
Variable multiply(const Variable& a, const Variable& b);
/// x * factor. Saves nothing.
Variable scale(const Variable& x, double factor);
/// Exact (erf) form. Saves x.
Variable gelu(const Variable& x);
/// x * sigmoid(x). Saves x.
Variable silu(const Variable& x);

}  // namespace lectern
