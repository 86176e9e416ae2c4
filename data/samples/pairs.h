// Stored pairs of a picture and an answer (data/shards/pair.h): the sample shows the whole picture,
// is asked with the record's own prompt and learns the record's answer alone. Records without a
// picture are learnt as text.
#pragma once

#include "data/samples/kinds.h"
#include "data/samples/source.h"
#include "data/shards/shard_set.h"

#include <cstdint>
#include <memory>
#include <string>

namespace lectern {

struct PairOptions {
  std::shared_ptr<const ShardSet> shards;
  std::string prompt = "<image>\nFree OCR.";  // of pictures that have none
  /// Records with longer answers are left out; SampleSource::dropped counts them.
  std::int64_t max_response_tokens = 8192;
  bool pictures_only = false;  // records of text alone are left out, too
};

/// Throws ConfigError on bad options, when the shards were not made with `tokenizer`, and when no
/// record is left.
std::shared_ptr<const SampleSource> make_pair_source(PairOptions options,
                                                     const Tokenizer& tokenizer);

/// `kind = "pairs"` of a recipe.
class PairSettings final : public SourceSettings {
 public:
  std::string folder;
  PairOptions options;  // without the shards

  std::string label() const override { return "pairs"; }
  void describe(FieldVisitor& f, const SourceDefaults& defaults) override;
  std::vector<std::filesystem::path> inputs() const override { return {folder}; }
  std::shared_ptr<const SampleSource> open(const SourceContext& context) const override;
};

}  // namespace lectern
