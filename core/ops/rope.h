// rope: rotary position embedding, rotate-half form (NeoX, Llama), on packed projections.
//
//   angle_j = position * theta^(-2 j / D),  j = 0 .. D/2 - 1
//   out_j       = x_j       cos(angle_j) - x_{j+D/2} sin(angle_j)
//   out_{j+D/2} = x_{j+D/2} cos(angle_j) + x_j       sin(angle_j)
//
// qkv        [B, T, (H + 2 G) D] f32 or f64, contiguous; column blocks q: H D | k: G D | v: G D.
//            Every head of q and k is rotated, v is copied.
// positions  i32 [B, T], at least 0; without them row t has position offset + t.
// f32: inverse frequency and angle are rounded to float, as in transformers, then cosine and sine
// are exact to rounding. f64: double throughout.
// Backward is the rotation by -angle; nothing is saved.
// Throws ShapeError, DTypeError, ConfigError (odd head_dim, theta, negative position).
// Cosines are cached for positions below 131072, per head_dim, theta and dtype.
// Source: Su et al., "RoFormer" (2021).
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

#include <cstdint>

namespace lectern {

struct RopeArgs {
  std::int64_t heads = 1;
  std::int64_t kv_heads = 1;
  std::int64_t head_dim = 2;
  double theta = 10000.0;
  Tensor positions{};
  std::int64_t offset = 0;  ///< only without positions
};

Tensor rope(const Tensor& qkv, const RopeArgs& args);
/// Rotates the memory of `qkv` itself.
void rope_in_place(const Tensor& qkv, const RopeArgs& args);
/// Gradient of qkv from the gradient of rope(qkv).
Tensor rope_backward(const Tensor& grad_out, const RopeArgs& args);

struct RopeKernels {
  /// `out` may be `qkv`. `inverse` rotates by the negative angle.
  void (*forward)(const Tensor& qkv, const RopeArgs& args, bool inverse, const Tensor& out);
};
KernelTable<RopeKernels>& rope_table();

}  // namespace lectern
