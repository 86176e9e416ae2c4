// One block of a stack as a unit of recomputation: what TransformerBlock and SamTokenizer share.
#pragma once

#include "autograd/variable.h"
#include "nn/forward_context.h"

#include <functional>
#include <vector>

namespace lectern {

using Segment = std::function<std::vector<Variable>(const std::vector<Variable>&)>;

/// segment(inputs), with its graph kept or, where the context's plan or `recompute_blocks` says so,
/// run again in backward (recompute() in autograd/variable.h).
std::vector<Variable> block_outputs(const ForwardContext& context, const Segment& segment,
                                    const std::vector<Variable>& inputs,
                                    const std::vector<Variable>& parameters);

}  // namespace lectern
