#include "data/samples/source.h"

#include "core/error.h"
#include "core/io/files.h"

#include <algorithm>

namespace lectern {

std::int64_t SampleSource::longest(const ViewOptions& view) const {
  std::int64_t most = 0;
  for (std::int64_t i = 0; i < count(); ++i) most = std::max(most, lengths(i, view).sum());
  return most;
}

WholePage SampleSource::whole_page(std::int64_t /*index*/) const {
  fail<ConfigError>(fmt::format("samples: {} is no part of a page", describe()));
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
