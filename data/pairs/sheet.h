// Pairs of a folder of shards on one picture, to look at.
#pragma once

#include "data/images/image.h"

#include <cstdint>
#include <filesystem>
#include <string>

namespace lectern {

struct PairSheetOptions {
  std::int64_t records = 24;  // at most; spread over all
  std::int64_t columns = 4;
  std::int64_t side = 300;  // pixels that a picture fits into
  std::string own_prompt;   // is shown where a record has none
};

/// Each picture with its boxes and their labels, and below it the prompt and the answer as far as
/// they fit, [label] in place of a place. Characters that no font has are shown as "?". Throws
/// IoError when the shards cannot be read, ConfigError when there is no font.
Image pair_sheet(const std::filesystem::path& shards, const PairSheetOptions& options);

}  // namespace lectern
