// Parity of the image processor with a fixture folder (case.json kind "preprocess").
#pragma once

#include "recipes/parity/parity.h"

#include <filesystem>

namespace lectern {

/// grids.json: [[width, height, columns, rows, image tokens]] at the published sizes, exact.
/// pixels.safetensors: <name>.image [h, w, 3] u8 against <name>.<backend>.{global,local}
/// [n, 3, s, s] u8; view sizes are read from the tensors. Differences are in 8-bit steps: `pil`
/// must be equal, another backend (torchvision) may differ by one step as it does from Pillow.
/// Throws IoError when a file is missing or malformed.
ParityReport parity_preprocess(const std::filesystem::path& folder);

}  // namespace lectern
