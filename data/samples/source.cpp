#include "data/samples/source.h"

#include "core/error.h"
#include "core/io/files.h"

#include <algorithm>
#include <utility>

namespace lectern {

std::int64_t SampleSource::longest(const ViewOptions& view) const {
  std::int64_t most = 0;
  for (std::int64_t i = 0; i < count(); ++i) most = std::max(most, lengths(i, view).sum());
  return most;
}

std::string SampleSource::remark() const {
  if (dropped() == 0) return "";
  return fmt::format("{}: {} samples; {} left out: {}", describe(), count(), dropped(),
                     wording(left_out()));
}

WholePage SampleSource::whole_page(std::int64_t /*index*/) const {
  fail<ConfigError>(fmt::format("samples: {} is no part of a page", describe()));
}

std::string wording(const LeftOut& left_out) {
  std::string out;
  for (const auto& [count, reason] :
       {std::pair{left_out.tokens, "longer than max_text_tokens"},
        std::pair{left_out.characters, "longer than max_characters"},
        std::pair{left_out.letters, "with other letters than ascii_only lets pass"},
        std::pair{left_out.box, "too small, too narrow or outside of the page"},
        std::pair{left_out.empty, "without text or picture"}})
    if (count > 0) out += fmt::format("{}{} {}", out.empty() ? "" : ", ", count, reason);
  return out;
}

std::string content_key(const std::string& picture_sha256, std::string_view content) {
  return "|" + sha256_of(fmt::format("{}\n{}", picture_sha256, content)).substr(0, 32);
}

void check_tokenizer(const Tokenizer& tokenizer, const std::string& sha256,
                     const std::string& folder) {
  const std::string wanted = sha256_of(tokenizer.json());
  if (sha256 != wanted)
    fail<ConfigError>(
        fmt::format("samples: {} was made with another tokenizer (sha256 {}), got one with {}",
                    folder, sha256, wanted));
}

}  // namespace lectern
