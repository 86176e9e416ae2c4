// Text only: what the pages of shards say, without a picture and without a prompt.
#pragma once

#include "data/samples/cut.h"

#include <memory>

namespace lectern {

/// Of `options` the filters hold. Throws as make_cut_source.
std::shared_ptr<const SampleSource> make_text_source(CutOptions options,
                                                     const Tokenizer& tokenizer);

/// `kind = "text"` of a recipe.
struct TextSettings : SourceSettings {
  std::string folder;
  CutOptions options;  // without the shards

  std::shared_ptr<const SampleSource> open(const SourceContext& context) const override;
};

std::shared_ptr<const SourceSettings> read_text_settings(SettingsReader& table,
                                                         const SourceDefaults& defaults);

}  // namespace lectern
