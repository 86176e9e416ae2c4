// One function an operation, each filling its CUDA slot; register_operations() calls them all.
#pragma once

namespace lectern::cuda {

void register_accumulate();
void register_adamw();
void register_attention();
void register_conv2d();
void register_convert();
void register_cross_entropy();
void register_dropout();
void register_elementwise();
void register_experts();
void register_interpolate();
void register_layer_norm();
void register_layout();
void register_linear();
void register_linear_cross_entropy();
void register_matmul();
void register_patchify();
void register_reduce();
void register_rms_norm();
void register_rope();
void register_router();
void register_rows();
void register_sinkhorn();
void register_stream_read();
void register_stream_stack();
void register_stream_write();
void register_swiglu();
void register_window();

void register_operations();

}  // namespace lectern::cuda
