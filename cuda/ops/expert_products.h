// Products of the experts' matrices with the rows that were sent to them, all experts in one
// launch: the device finds out itself which block does what, so nobody waits for the counts.
#pragma once

#include "core/tensor.h"

#include <cstdint>

namespace lectern::cuda {

/// Rows in the order of their experts; all i32, on the device.
struct ExpertPlaces {
  Tensor begin;       ///< [E + 1]: expert e has places begin[e] .. begin[e + 1] - 1
  Tensor tile_begin;  ///< [E + 1]: the same in tiles of rows (kExpertTileRows)
  Tensor pair_at;     ///< [P]: pair n K + k at a place
  std::int64_t experts = 0, pairs = 0, top_k = 1;
};

/// Rows of a tile, f32 and bf16 alike.
inline constexpr std::int64_t kExpertTileRows = 64;

/// An operand or result with a row a place, or, `by_token`, with a row a token.
struct ExpertRows {
  Tensor rows;
  bool by_token = false;
};

/// out[place] = a[place] B_e^T, B [E, n, k]; with `plain`, out[place] = a[place] B_e, B [E, k, n].
/// a and b f32 or both bf16; out f32, or bf16 for bf16 operands.
void expert_rows_product(const ExpertPlaces& places, const ExpertRows& a, const Tensor& b,
                         bool plain, const Tensor& out);

/// out_e = sum over the places of expert e of a[place]^T b[place]: out [E, m, n] f32, zeros for an
/// expert without places.
void expert_weights_product(const ExpertPlaces& places, const ExpertRows& a, const ExpertRows& b,
                            const Tensor& out);

}  // namespace lectern::cuda
