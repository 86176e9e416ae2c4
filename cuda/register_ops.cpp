#include "cuda/ops/register_ops.h"

namespace lectern::cuda {

void register_operations() {
  register_accumulate();
  register_adamw();
  register_attention();
  register_conv2d();
  register_convert();
  register_cross_entropy();
  register_dropout();
  register_elementwise();
  register_experts();
  register_interpolate();
  register_layer_norm();
  register_layout();
  register_linear();
  register_linear_cross_entropy();
  register_matmul();
  register_patchify();
  register_reduce();
  register_rms_norm();
  register_rope();
  register_router();
  register_rows();
  register_sinkhorn();
  register_stream_read();
  register_stream_stack();
  register_stream_write();
  register_swiglu();
  register_window();
}

}  // namespace lectern::cuda
