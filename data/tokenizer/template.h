// What other programs need of a tokenizer.json that lectern does not.
#pragma once

#include "data/tokenizer/tokenizer.h"

#include <cstdint>
#include <string>

namespace lectern {

/// The tokenizer.json of `tokenizer` for programs that ask it for all tokens of a prompt: its
/// post_processor puts the token `begin`, with which every training sample began, in front of a
/// text and nothing else around it; truncation and padding, which lectern never applies, are gone.
/// What else the post_processor does (ByteLevel: offsets) stays. A tokenizer read from it gives the
/// same ids without add_special. Throws ConfigError when there is no token with that id.
std::string json_with_begin_token(const Tokenizer& tokenizer, std::int32_t begin);

}  // namespace lectern
