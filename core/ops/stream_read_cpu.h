// CPU kernels of stream_read. Private to this room.
#pragma once

#include "core/ops/stream_read.h"

namespace lectern {

void stream_read_forward_cpu(const Tensor& x, const StreamParameters& parameters,
                             const StreamReadArgs& args, const StreamReadOutput& result);
void stream_read_backward_cpu(const Tensor& grad_input, const Tensor& grad_mixed,
                              const Tensor& grad_post, const Tensor& x,
                              const StreamParameters& parameters, const StreamReadOutput& forward,
                              const StreamReadArgs& args, const StreamReadGradients& result);

}  // namespace lectern
