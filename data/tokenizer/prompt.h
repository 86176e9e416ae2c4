// What stands before an answer.
#pragma once

#include "data/tokenizer/tokenizer.h"

#include <cstdint>
#include <string_view>
#include <vector>

namespace lectern {

/// Stands in a prompt for the placeholders of the picture.
inline constexpr std::string_view kImageTag = "<image>";

/// Tokens of a prompt without the `<image>` that it may begin with. Throws ConfigError when another
/// `<image>` is in it.
std::vector<std::int32_t> encode_prompt(const Tokenizer& tokenizer, std::string_view prompt);

}  // namespace lectern
