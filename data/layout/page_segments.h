// Lines and words of a page picture, found by their ink alone, and the pieces that a model with a
// small view can read one after the other.
//
// Boxes are in pixels of the levelled page (level_page): column x of the page moved up by
// slope x (x - width / 2), rounded. Where slope is 0, as on all pages that were not scanned, these
// are the pixels of the page. A function of the picture alone. Not found: text that does not run
// from left to right, light text on dark ground, text that touches a frame or lies in a picture.
#pragma once

#include "data/images/image.h"
#include "data/pages/page.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

struct InkWord {
  Box box;
  std::vector<double> breaks;  // x of white between its letters, ascending
};

struct InkText {
  // What is inked, and in height at least from the top of capitals to the foot of letters like g:
  // a text layer has such boxes, whatever letters there are. Words have its top and bottom.
  Box box;
  std::vector<InkWord> words;  // from left to right, at least one
  std::int64_t block = 0;      // lines of one paragraph or list share a number, ascending
};

struct PageSegments {
  std::int64_t width = 0, height = 0;  // of the page
  double slope = 0;                    // rows that lines sink by a column, within +-0.06
  std::vector<InkText> lines;          // in reading order: column by column, top to bottom
};

/// Takes some 5 ms a million pixels. An empty or a black page has no lines.
PageSegments find_text(const Image& page);

/// The page with level lines on white paper: what pieces are cut from. Paper that is nearly white
/// stays as it is.
Image level_page(const Image& page, double slope);

enum class PieceEnd { inside_word, word, line, block };

struct PagePiece {
  Box box;
  PieceEnd end = PieceEnd::word;  // what ends with this piece; the last one ends a block
};

/// Runs of words of one line, each as long as fits into `width` pixels, as training cuts lines
/// (CutOptions::cut_width); parted at wide gaps, too. A word that is wider than the 1.25-fold is
/// cut between letters. Throws ConfigError unless width is at least 1.
std::vector<PagePiece> cut_pieces(const PageSegments& segments, std::int64_t width);

/// The texts of the pieces as one: nothing inside a word, a space between words, "\n" between lines
/// and "\n\n" between blocks. White space at the ends of a text does not count, line ends inside it
/// are spaces, and what stands around an empty text is joined as if it were not there.
std::string join_pieces(const std::vector<PagePiece>& pieces,
                        const std::vector<std::string>& texts);

/// How well lines agree with the text layer of a page.
struct SegmentScore {
  std::int64_t lines = 0;         // true ones
  std::int64_t found = 0;         // all of their words lie in one line that is not much higher
  std::int64_t words = 0;         // true ones, in lines that were found
  std::int64_t split = 0;         // of these, words that the pieces cut
  std::int64_t out_of_order = 0;  // found lines that come before the one found before them
  std::int64_t pieces = 0;
  std::int64_t extra = 0;  // lines that hold no true word
};
SegmentScore score_segments(const PageSegments& segments, const Page& truth, std::int64_t width);

/// What join_pieces would give if every piece were read without an error: what is left to lose to
/// order, line ends and words that were missed.
std::string perfect_reading(const PageSegments& segments, const Page& truth, std::int64_t width);

}  // namespace lectern
