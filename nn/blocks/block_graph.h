// One block of a stack as a unit of recomputation: what TransformerBlock and SamTokenizer share.
#pragma once

#include "autograd/variable.h"
#include "nn/forward_context.h"

#include <functional>
#include <vector>

namespace lectern {

/// One pass through a block, [..., C] to the same; it may report to its context.
using BlockPass = std::function<Variable(const Variable& x, ForwardContext& context)>;

/// pass(x, context), with its graph kept or, where the context's plan or `recompute_blocks` says
/// so, run again in backward (recompute() in autograd/variable.h). `parameters` are those that the
/// pass reads. What it reports reaches `context` once.
Variable run_block(const BlockPass& pass, const Variable& x,
                   const std::vector<Variable>& parameters, ForwardContext& context);

}  // namespace lectern
