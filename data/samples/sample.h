// Training samples, cut from pages or drawn when they are loaded.
//
//   word    one word, at its own box and scale, its text beginning at a fixed place of a white view
//   line    the same for a line, made smaller where it is too wide
//   region  some consecutive lines of one column, at the top left of the view
//   page    the image views of a whole page (global view and local tiles)
//   text    the text of a page, no image
//
// A drawn sample (data/synthetic/synthetic.h) has the same place in its view; one character is a
// level too.
//
// Tokens of a sample: [begin] image placeholders, prompt, response, [end]; only the response and
// the end are trained. How many they are is known without reading any page.
#pragma once

#include "data/images/views.h"
#include "data/pages/level.h"
#include "data/samples/sampler.h"
#include "data/shards/shard_set.h"
#include "data/synthetic/synthetic.h"
#include "data/tokenizer/tokenizer.h"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// One ingredient of the mixture.
struct SampleSource {
  // One of the two.
  std::shared_ptr<const ShardSet> shards;
  std::shared_ptr<const SyntheticSource> synthetic;
  Level level = Level::page;  // of shards; drawn samples have their own
  double weight = 1;
  std::string prompt = "<image>\nFree OCR.";  // `<image>`, if there, must come first
  // Pieces of shards that do not pass are left out; SampleSet::dropped counts them.
  bool ascii_only = false;
  std::int64_t max_characters = 0;          // 0: any
  std::int64_t max_response_tokens = 8192;  // drawn text is chosen so that it fits
  std::int64_t region_lines = 4;
  /// Lines are cut between words into runs at most this wide, regions into windows this wide, whose
  /// words at the edge are left out; pixels of the page. 0: whole lines.
  std::int64_t cut_width = 0;
  /// Words, lines and regions are drawn from this many neighbouring pages at a time, which should
  /// fit into the shards' cache. 0: from all. Shards hold their pages in random order.
  std::int64_t window_pages = 64;
};

struct SampleOptions {
  /// Resolutions that training alternates between; view v is used for the whole of a step.
  std::vector<ViewOptions> views = std::vector<ViewOptions>(1);
  std::int32_t begin_token = 0, end_token = 1;  // begin -1: none
  std::int32_t image_token = 128815;
  std::int64_t margin = 4;       // pixels left of a pasted text
  std::int64_t padding = 1;      // pixels of the page kept around a box
  std::int64_t text_height = 0;  // pixels that a word's or line's box is scaled to; 0: as it is
  bool at_top =
      false;  // words and lines begin `margin` below the top, as regions do; else in the middle
  /// Pasted text moves by up to this, another way each time, but never out of the view.
  std::int64_t jitter_pixels = 0;
  std::uint64_t seed = 0;  // of the jitter
};

/// A page as it was before anything was cut from it.
struct WholePage {
  Image picture;
  double dots_per_inch = 0;  // 0 for drawn ones
};

struct Sample {
  Image global;              // empty for text, or when pixels were not asked for
  std::vector<Image> local;  // row-major over columns x rows
  int columns = 0, rows = 0;
  std::int64_t image_tokens = 0;
  std::vector<std::int32_t> prompt_ids, response_ids;
  std::string text;  // of the response
  std::string page_id;
  Level level = Level::page;
  Box box;          // on the page
  std::string key;  // names the pixels: the same key has the same image
};

/// All samples of several sources. Functions may be called from several threads.
class SampleSet {
 public:
  /// Reads the tables of all shards. Throws ConfigError on bad options, when the shards were not
  /// made with `tokenizer`, and when a source has no piece that passes its filters.
  SampleSet(std::vector<SampleSource> sources, SampleOptions options, const Tokenizer& tokenizer);
  ~SampleSet();
  SampleSet(SampleSet&&) noexcept;

  const SampleOptions& options() const;
  /// What a Sampler over this set needs.
  std::vector<SamplerSource> sampler_sources() const;
  /// Pieces of a source; of a drawn one 2^32, and the unit is SyntheticSource's index.
  std::int64_t units(int source) const;
  /// Pieces that did not pass the filters.
  std::int64_t dropped(int source) const;

  /// Tokens of the whole sample, and of those the trained ones.
  std::int64_t token_count(const Draw& draw, int view = 0) const;
  std::int64_t trained_count(const Draw& draw) const;
  /// Of them those that stand for the image.
  std::int64_t image_tokens(const Draw& draw, int view = 0) const;
  /// The largest token_count of all samples; of drawn ones the largest that is possible.
  std::int64_t longest(int view = 0) const;
  /// Images that the sample has: 0 or 1; and its local tiles.
  ViewGrid grid(const Draw& draw, int view = 0) const;

  Sample make(const Draw& draw, int view = 0, bool pixels = true) const;
  /// The page that a sample shows a part of. Throws ConfigError for drawn pieces of none.
  WholePage whole_page(const Draw& draw) const;
  /// Sample::key, and nothing else of it.
  std::string key(const Draw& draw, int view = 0) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lectern
