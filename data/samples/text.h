// Text only: what the pages of shards say, without a picture and without a prompt.
#pragma once

#include "data/samples/cut.h"

#include <memory>

namespace lectern {

/// Of `options` the filters hold. Throws as make_cut_source.
std::shared_ptr<const SampleSource> make_text_source(CutOptions options,
                                                     const Tokenizer& tokenizer);

/// `kind = "text"` of a recipe.
class TextSettings final : public SourceSettings {
 public:
  std::string folder;
  CutOptions options;  // without the shards

  std::string label() const override { return "text"; }
  void describe(FieldVisitor& f, const SourceDefaults& defaults) override;
  std::vector<std::filesystem::path> inputs() const override { return {folder}; }
  std::shared_ptr<const SampleSource> open(const SourceContext& context) const override;
};

}  // namespace lectern
