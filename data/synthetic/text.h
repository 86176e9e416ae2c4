// What synthetic samples say. Private to this room.
#pragma once

#include "core/random.h"
#include "data/synthetic/synthetic.h"

#include <functional>
#include <string>
#include <vector>

namespace lectern::detail {

/// Characters that a face has, quick to ask.
class FaceCoverage {
 public:
  FaceCoverage(const FontFace& face, const std::vector<char32_t>& characters);
  bool has(char32_t character) const;
  bool spells(std::string_view text) const;
  /// Those of the text's characters that the face has, CJK left out; for random words.
  const std::vector<std::string>& letters() const { return letters_; }

 private:
  std::vector<bool> low_;       // below kLow
  std::vector<char32_t> high_;  // the others, ascending
  std::vector<std::string> letters_;
};

/// Draws text for one sample from its random stream, of words that one face can spell.
class TextChooser {
 public:
  TextChooser(const TextCorpus& corpus, const SyntheticOptions& options,
              const FaceCoverage& coverage, Random random);

  std::string character();
  /// A word of `shortest` .. `longest` characters; shorter or longer when the text has none.
  std::string word(std::int64_t shortest, std::int64_t longest);
  /// Starts at a random place; next_line() goes on from there.
  void start();
  /// Words up to `longest` characters; always at least one.
  std::string next_line(std::int64_t longest);
  /// True when a paragraph of the text ended with the last line.
  bool at_paragraph() const;
  Random& random() { return random_; }

 private:
  bool is_usable(std::int64_t i, std::int64_t shortest, std::int64_t longest) const;
  std::int64_t find(std::int64_t shortest, std::int64_t longest, bool distinct);
  void skip_unusable(std::int64_t longest);
  std::string random_word(std::int64_t length);

  const TextCorpus& corpus_;
  const SyntheticOptions& options_;
  const FaceCoverage& coverage_;
  Random random_;
  std::int64_t at_ = 0;
};

/// One line of a page as it will be drawn.
struct PageLine {
  std::vector<std::string> cells;  // one, or those of a table's row
  int column = 0;
  double indent = 0;  // em of the page
  double size = 1;    // times the page's em
  bool bold = false;
  bool rule_below = false;
  double top = 0;  // of the line, em of the page, from the top of the column's text
  bool ends_block = false;
};

struct PagePlan {
  std::int64_t width = 0, height = 0;  // pixels
  double em = 12;                      // pixels
  double margin_x = 0, margin_y = 0;   // pixels
  double column_width = 0, gutter = 0;
  int columns = 1;
  bool justified = false;
  std::vector<PageLine> lines;

  std::string text() const;
};

/// `share` of a full page, 0 .. 1, is filled.
PagePlan plan_page(TextChooser& chooser, const SyntheticOptions& options,
                   std::array<std::int64_t, 2> size, double share);
std::array<std::int64_t, 2> choose_page_size(const SyntheticOptions& options, Random& random);

}  // namespace lectern::detail
