// Samples that are drawn from real text instead of cut from pages; their truth is exact.
//
//   character  one character            region  some lines, wrapped at a number of characters
//   word       one word                 page    headings, paragraphs, lists, tables, columns
//   line       some words
//
// A sample is a pure function of (seed, index): text, face, size, colours and noise come from
// Philox streams that are sought to the index. The pixels also depend on the versions of the
// fonts, pango and cairo; text depends on the text files and on which fonts the machine has.
// Text is chosen before anything is measured, so lengths are known without drawing.
#pragma once

#include "core/io/record.h"
#include "core/random.h"
#include "data/images/image.h"
#include "data/pages/level.h"
#include "data/synthetic/text_painter.h"
#include "data/text/text_corpus.h"

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace lectern {

/// What the fields mean, and their ranges: describe() in look.cpp.
struct SyntheticOptions {
  Level level = Level::word;
  std::uint64_t seed = 0;
  std::vector<std::string>
      fonts;  // families; none: those of default_font_families() that are there
  std::int64_t min_characters = 1;   // of a word or line
  std::int64_t max_characters = 12;  // of a word or line; of each line of a region
  std::int64_t region_lines = 4;     // a region has 2 .. this many lines
  double distinct_share = 0, random_share = 0;

  std::array<double, 2> font_size = {12, 16};
  double bold_share = 0.15, italic_share = 0.15;
  double stretch = 0.05;
  double rotation_degrees = 0;
  double blur = 0, noise = 0;
  double jpeg_share = 0;
  std::int64_t jpeg_quality = 40;
  std::int64_t ink = 0, paper = 255;
  double colour_share = 0;

  std::array<std::int64_t, 2> page_width = {600, 900};
};

/// How a drawn sample looks: everything above from distinct_share on, but for page_width.
void describe(SyntheticOptions& r, FieldVisitor& f);
/// What only whole pages have: page_width.
void describe_page(SyntheticOptions& r, FieldVisitor& f);

/// Text families that scripts/install-deps.sh installs.
const std::vector<std::string>& default_font_families();

/// Where a text goes in a square view.
struct Placement {
  std::int64_t size = 64;   // pixels a side
  std::int64_t margin = 4;  // left of the text, and above a region; others are centred in height
  std::int64_t jitter = 0;  // pixels that it moves by, up to this much each way
  bool at_top = false;      // words and lines lie as high as regions do
};

/// Functions may be called from several threads.
class SyntheticSource {
 public:
  /// Throws ConfigError on bad options, when a named family is not installed (naming it), when no
  /// family is, and when no font has the characters of the text. Words that no face can spell are
  /// left out of the text.
  SyntheticSource(TextCorpus corpus, SyntheticOptions options);
  ~SyntheticSource();

  const SyntheticOptions& options() const;
  const TextCorpus& corpus() const;
  const std::vector<FontFace>& faces() const;
  /// Families that were asked for by default and are not installed.
  const std::vector<std::string>& missing_families() const;
  /// Everything but the index that samples depend on; for keys.
  const std::string& fingerprint() const;

  /// What sample `index` says, lines joined by "\n" and blocks of a page by "\n\n". `attempt` > 0
  /// says something else, shorter from the fourth on: for callers with a limit on length.
  std::string text(std::uint64_t index, int attempt = 0) const;
  /// Width and height of a page in pixels.
  std::array<std::int64_t, 2> page_size(std::uint64_t index) const;
  const FontFace& face(std::uint64_t index) const;

  /// A view with the text (all levels but page). All ink is inside.
  Image draw(std::uint64_t index, const Placement& placement, int attempt = 0) const;
  /// A page. Throws ConfigError for another level.
  Image draw_page(std::uint64_t index, int attempt = 0) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lectern
