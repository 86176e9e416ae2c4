// Which pages have a text layer that can be believed.
#pragma once

#include "data/images/image.h"
#include "data/pages/page.h"

#include <cstdint>
#include <string>

namespace lectern {

struct PageQuality {
  std::int64_t min_characters = 20;     // white space not counted
  double max_rotated_fraction = 0.2;    // characters of rotated words among all
  double max_invisible_fraction = 0.1;  // words with no ink under them among all
  bool keeps_right_to_left = false;     // the words are known to be in the order of the text
};

/// Why the page must not be used, or "" when it may. Text that is not UTF-8 or has a control
/// character, U+FFFD, a private-use character or a noncharacter comes from a font without a
/// trustworthy encoding: what it shows is not known. So does a word that begins with a combining
/// mark, or a vowel sign behind a letter of another script: parts of the letters are missing.
/// Letters that run from right to left come from poppler in the order of their boxes, not of the
/// text; words that fall apart into letters come of mirrored or spaced-out text; where two words
/// stand in one place, one of them is not to be seen. Then: almost no
/// text (a scan, a figure), much rotated text (the text in reading order would leave out what the
/// picture shows).
std::string reason_to_drop(const Page& page, const PageQuality& quality = {});

/// Why the picture does not show the text, or "": words whose boxes hold one flat colour, or
/// nothing but rules that run on beyond them, are hidden (a layer for searching, white on white) or
/// were not drawn. Boxes must lie inside the image.
std::string reason_to_drop(const Page& page, const Image& image, const PageQuality& quality = {});

/// Takes out the words that the picture does not show, and soft hyphens within words where no
/// hyphen is to be seen (others become "-"); lines and texts are made anew (fit_to_image). Returns
/// the number of words taken out. Boxes must lie inside the image.
std::int64_t keep_what_is_shown(Page& page, const Image& image);

}  // namespace lectern
