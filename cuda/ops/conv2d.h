// How many bytes of patches a convolution is multiplied through at once.
#pragma once

#include <cstddef>

namespace lectern::cuda {

/// As many images as fit are unfolded together, one at least. A variable for the tests.
inline std::size_t most_patch_bytes = std::size_t{256} << 20;

}  // namespace lectern::cuda
