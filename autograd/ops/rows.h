// Row selection and embedding with gradient. Formulas and errors: core/ops/rows.h.
#pragma once

#include "autograd/variable.h"

#include <vector>

namespace lectern {

/// sources [R_s, C] each, index i32 [n, 2] of (source, row) -> [n, C]. Saves index only. Gradients
/// are dense [R_s, C], for the sources that require one.
Variable select_rows(const std::vector<Variable>& sources, const Tensor& index);

/// table [V, C], ids i32 or i64 of any shape -> [ids..., C].
Variable embedding(const Variable& table, const Tensor& ids);

}  // namespace lectern
