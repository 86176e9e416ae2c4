// The arithmetic of a reduction over ranks: parts of one length, added in their order.
#pragma once

#include "core/dtype.h"
#include "distributed/communicator.h"

#include <cstdint>
#include <span>

namespace lectern {

/// out[i] := parts[0][i] (op) parts[1][i] (op) ..., left to right, for i in 0 .. count-1. bf16 is
/// added in f32 and rounded once. `out` may be one of the parts. Any number of threads gives the
/// same bits. At least one part; dtype not u8.
void reduce_parts(std::span<const void* const> parts, void* out, std::int64_t count, DType dtype,
                  Reduction reduction);

}  // namespace lectern
