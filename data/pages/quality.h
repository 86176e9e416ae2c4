// Which pages have a text layer that can be believed.
#pragma once

#include "data/images/image.h"
#include "data/pages/page.h"

#include <string>

namespace lectern {

struct PageQuality {
  std::int64_t min_characters = 20;     // white space not counted
  double max_rotated_fraction = 0.2;    // characters of rotated words among all
  double max_invisible_fraction = 0.1;  // words with no ink under them among all
};

/// Why the page must not be used, or "" when it may. Text that is not UTF-8 or has a control
/// character, U+FFFD, a private-use character or a noncharacter comes from a font without a
/// trustworthy encoding: what it shows is not known. Then: almost no text (a scan, a figure), much
/// rotated text (the text in reading order would leave out what the picture shows).
std::string reason_to_drop(const Page& page, const PageQuality& quality = {});

/// Why the picture does not show the text, or "": words whose boxes hold one flat colour are hidden
/// (a layer for searching, white on white) or were not drawn. Boxes must lie inside the image.
std::string reason_to_drop(const Page& page, const Image& image, const PageQuality& quality = {});

}  // namespace lectern
