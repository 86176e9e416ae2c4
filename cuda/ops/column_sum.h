// Sums over the rows of a matrix, the same bits in every run: rows are cut into parts, each part is
// summed in ascending order by one thread a column, and the parts are added in order.
#pragma once

#include "core/tensor.h"

#include <cstdint>

namespace lectern::cuda {

/// out[c] = sum over r of x[r, c]; x [rows, columns] f32 or bf16, out [columns] f32 or bf16.
/// Accumulates in f32. rows may be 0.
void column_sum(const Tensor& x, std::int64_t rows, std::int64_t columns, const Tensor& out);

}  // namespace lectern::cuda
