// sinkhorn: pushes n x n matrices of logits towards doubly stochastic ones.
//
//   paper        exp(l - row max), then (columns, rows) x t            ends on rows
//   megatron     exp(l - row max), then (rows, columns) x t, divisors at least 1e-6
//   deepseek_v4  softmax over rows + 1e-6, columns, then (rows, columns) x (t - 1), divisors + 1e-6
// where "rows" divides each row by its sum and "columns" each column.
//
// logits   [..., n, n]  f32 or f64 (CUDA: f32), n = 1..8
// output   [..., n, n]  same dtype; empty when logits are empty
//
// The side normalised last sums to 1 (deepseek_v4: just under), the other tends to it. Any finite
// logits give finite results and gradients: where a column would underflow, paper goes through
// logarithms; the other two say through their epsilons what happens there.
// Backward recomputes the iterates from the logits (sinkhorn_math.h); nothing else is kept.
// Source: mHC, arXiv 2512.24880, eq. 9; DeepSeek TileKernels; Megatron-LM hyper_connection.py. The
// paper's exp(l) cannot be evaluated as it stands; subtracting the row maximum is what our
// reference (shared/oracle/make_mhc_fixture.py) does and changes the result only while it has not
// converged.
#pragma once

#include "core/kernel_table.h"
#include "core/ops/sinkhorn_math.h"
#include "core/tensor.h"

#include <string>
#include <string_view>

namespace lectern {

/// "paper" | "megatron" | "deepseek-v4"; throws ConfigError for anything else.
StreamConvention stream_convention_from(std::string_view name);
std::string_view name_of(StreamConvention convention);

struct SinkhornArgs {
  StreamConvention convention = StreamConvention::deepseek_v4;
  std::int64_t iterations = 20;  ///< 1 to 1000
};

/// Throws ShapeError when logits are not [..., n, n] with n = 1..8, DTypeError when they are not
/// f32/f64, ConfigError when iterations are out of range.
Tensor sinkhorn(const Tensor& logits, const SinkhornArgs& args);
/// Gradient of the logits.
Tensor sinkhorn_backward(const Tensor& grad_output, const Tensor& logits, const SinkhornArgs& args);

struct SinkhornKernels {
  void (*forward)(const Tensor& logits, const SinkhornArgs& args, const Tensor& output);
  void (*backward)(const Tensor& grad_output, const Tensor& logits, const SinkhornArgs& args,
                   const Tensor& grad_logits);
};
KernelTable<SinkhornKernels>& sinkhorn_table();

}  // namespace lectern
