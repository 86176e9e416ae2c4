// What an ablation reads, as a hash: a result counts only as long as it is of the same data.
// Private to this room.
#pragma once

#include "recipes/recipe/recipe.h"

#include <filesystem>
#include <string>
#include <vector>

namespace lectern {

/// Hash of the content of files and of all files below folders, by name; what is not there does not
/// count. A file is read once as long as its size and time stay the same. Throws IoError.
std::string content_hash(const std::vector<std::filesystem::path>& paths);

/// Files and folders that a training recipe reads: data, tokenizer, configuration, first weights.
std::vector<std::filesystem::path> inputs_of(const Recipe& recipe);

}  // namespace lectern
