// Samples that are drawn from text when they are asked for (data/synthetic/synthetic.h): a piece of
// text that lies in its view as those do that are cut from pages, or a whole page.
#pragma once

#include "data/samples/kinds.h"
#include "data/samples/source.h"
#include "data/synthetic/synthetic.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace lectern {

struct DrawnOptions {
  std::shared_ptr<const SyntheticSource> synthetic;
  std::string prompt = "<image>\nFree OCR.";
  std::int64_t max_response_tokens = 8192;        // text is chosen so that it fits
  std::vector<std::filesystem::path> files = {};  // that the text is from
};

/// Has 2^32 samples; a sample's number is SyntheticSource's index. Throws ConfigError on bad
/// options and when no text is short enough.
std::shared_ptr<const SampleSource> make_drawn_source(DrawnOptions options,
                                                      const Tokenizer& tokenizer);

/// `kind = "synthetic"` of a recipe.
class DrawnSettings final : public SourceSettings {
 public:
  CorpusOptions text;                            // without the scripts
  std::vector<std::string> scripts = {"latin"};  // their names
  SyntheticOptions look;                         // without the seed
  DrawnOptions options;                          // without the texts

  std::string label() const override { return std::string(name_of(look.level)); }
  void describe(FieldVisitor& f, const SourceDefaults& defaults) override;
  void check(const RefuseKey& refuse) const override;
  std::vector<std::filesystem::path> inputs() const override { return text.text; }
  std::shared_ptr<const SampleSource> open(const SourceContext& context) const override;

 private:
  void describe_text(FieldVisitor& f);
};

}  // namespace lectern
