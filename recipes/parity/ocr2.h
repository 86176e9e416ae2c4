// Parity of the model with fixtures made by transformers (case.json kind "ocr2").
#pragma once

#include "recipes/parity/parity.h"

#include <filesystem>

namespace lectern {

/// Runs every case of the folder: all seams, logits, loss, all gradients, the training trajectories
/// in three freezing modes and greedy tokens. Nothing depends on the folder's names or sizes.
/// Bounds: outputs 1e-4 x max(1, max |reference|); gradients 1e-3 relative L2 (1e-6
/// absolute where the reference is under 1e-7 of the largest); router indices and tokens equal;
/// trajectories 1e-4 in loss and 1e-3 in gradient norm, relative.
ParityReport parity_ocr2(const std::filesystem::path& folder, Device device = {});

}  // namespace lectern
