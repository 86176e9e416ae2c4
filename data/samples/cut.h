// Samples that are cut from the pages of shards:
//
//   word    one word, at its own box and scale, its text beginning at a fixed place of a white view
//   line    the same for a line, made smaller where it is too wide
//   region  some consecutive lines of one column, at the top left of the view
//   page    the image views of a whole page (global view and local tiles)
#pragma once

#include "data/pages/level.h"
#include "data/samples/kinds.h"
#include "data/samples/source.h"
#include "data/shards/shard_set.h"

#include <cstdint>
#include <memory>
#include <string>

namespace lectern {

struct CutOptions {
  std::shared_ptr<const ShardSet> shards;
  Level level = Level::page;
  std::string prompt = "<image>\nFree OCR.";  // `<image>`, if there, must come first
  // Pieces that do not pass are left out; SampleSource::dropped counts them.
  bool ascii_only = false;
  std::int64_t max_characters = 0;  // 0: any
  std::int64_t max_response_tokens = 8192;
  std::int64_t region_lines = 4;
  /// Lines are cut between words into runs at most this wide, regions into windows this wide, whose
  /// words at the edge are left out; pixels of the page. 0: whole lines.
  std::int64_t cut_width = 0;
  /// Words, lines and regions are drawn from this many neighbouring pages at a time, which should
  /// fit into the shards' cache. 0: from all. Shards hold their pages in random order.
  std::int64_t window_pages = 64;

  /// Units are runs or windows, made of words.
  bool has_cuts() const {
    return cut_width > 0 && (level == Level::line || level == Level::region);
  }
};

/// Reads the tables of all shards. Throws ConfigError on bad options, when the shards were not made
/// with `tokenizer`, and when no piece passes the filters.
std::shared_ptr<const SampleSource> make_cut_source(CutOptions options, const Tokenizer& tokenizer);

/// `kind = "shards"` of a recipe.
class CutSettings final : public SourceSettings {
 public:
  std::string folder;
  CutOptions options;  // without the shards

  std::string label() const override { return std::string(name_of(options.level)); }
  void describe(FieldVisitor& f, const SourceDefaults& defaults) override;
  std::vector<std::filesystem::path> inputs() const override { return {folder}; }
  std::shared_ptr<const SampleSource> open(const SourceContext& context) const override;
};

}  // namespace lectern
