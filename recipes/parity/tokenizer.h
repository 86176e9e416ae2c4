// Parity of tokenizers with the `tokenizers` library.
#pragma once

#include "recipes/parity/parity.h"

#include <filesystem>

namespace lectern {

/// Reads tokenizer.json and cases.json of `folder` and compares, for every case, the pieces of the
/// pre-tokenizer, the ids and the decoded texts. One row for each kind of comparison; its
/// difference is the number of cases that differ, its bound 0, its note the first case that
/// differs. Throws IoError naming the file and the field when a file is missing or malformed.
ParityReport parity_tokenizer(const std::filesystem::path& folder);

}  // namespace lectern
