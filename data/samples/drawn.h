// Samples that are drawn from text when they are asked for (data/synthetic/synthetic.h): a piece of
// text that lies in its view as those do that are cut from pages, or a whole page.
#pragma once

#include "data/samples/kinds.h"
#include "data/samples/source.h"
#include "data/synthetic/synthetic.h"

#include <cstdint>
#include <memory>
#include <string>

namespace lectern {

struct DrawnOptions {
  std::shared_ptr<const SyntheticSource> synthetic;
  std::string prompt = "<image>\nFree OCR.";
  std::int64_t max_response_tokens = 8192;  // text is chosen so that it fits
};

/// Has 2^32 samples; a sample's number is SyntheticSource's index. Throws ConfigError on bad
/// options and when no text is short enough.
std::shared_ptr<const SampleSource> make_drawn_source(DrawnOptions options,
                                                      const Tokenizer& tokenizer);

/// `kind = "synthetic"` of a recipe.
struct DrawnSettings : SourceSettings {
  CorpusOptions text;
  SyntheticOptions look;  // without the seed
  DrawnOptions options;   // without the texts

  std::shared_ptr<const SampleSource> open(const SourceContext& context) const override;
};

std::shared_ptr<const SourceSettings> read_drawn_settings(SettingsReader& table,
                                                          const SourceDefaults& defaults);

}  // namespace lectern
