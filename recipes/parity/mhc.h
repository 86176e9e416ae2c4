// Parity of residual streams with the reference formulas of mHC.
#pragma once

#include "recipes/parity/parity.h"

#include <filesystem>

namespace lectern {

/// Reads mhc.safetensors of `folder`: any number of streams from 1 to 8, width and tokens.
/// Compares, in f32, the mappings, the layer's input and output and every gradient in each
/// convention that the file has, Sinkhorn at each of its iterations, and both ways to merge
/// streams. Throws IoError naming the file and the tensor when one is missing or does not fit.
ParityReport parity_mhc(const std::filesystem::path& folder);

}  // namespace lectern
