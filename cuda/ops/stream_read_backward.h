// The backward kernel of stream_read, a source file of its own.
#pragma once

#include "core/ops/stream_read.h"

namespace lectern::cuda {

void stream_read_backward_cuda(const Tensor& grad_input, const Tensor& grad_mixed,
                               const Tensor& grad_post, const Tensor& x,
                               const StreamParameters& parameters, const StreamReadOutput& forward,
                               const StreamReadArgs& args, const StreamReadGradients& result);

}  // namespace lectern::cuda
