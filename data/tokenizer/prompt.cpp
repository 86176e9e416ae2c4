#include "data/tokenizer/prompt.h"

#include "core/error.h"

namespace lectern {

std::vector<std::int32_t> encode_prompt(const Tokenizer& tokenizer, std::string_view prompt) {
  if (prompt.starts_with(kImageTag)) prompt.remove_prefix(kImageTag.size());
  if (prompt.find(kImageTag) != std::string_view::npos)
    fail<ConfigError>(
        fmt::format("samples: <image> must come first in the prompt, got \"{}\"", prompt));
  return tokenizer.encode(prompt);
}

}  // namespace lectern
