// Whether a value that is computed now will be computed again by the training path.
#pragma once

namespace lectern {

/// True where no graph is recorded and none will be: weights stay as they are between uses, so that
/// copies in other layouts pay. False while recording, and in the first run of a segment of
/// recompute(): both runs must take the same kernels, or gradients would belong to other values and
/// results would depend on what is recomputed.
bool weights_are_constant();

}  // namespace lectern
