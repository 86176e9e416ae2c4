// The text layer of PDF pages as poppler's `pdftotext -bbox-layout` writes it.
#pragma once

#include "data/pages/page.h"

#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// Pages in file order, with lines, blocks and words in reading order, boxes in pixels at
/// `dots_per_inch`. Width and height are those of the unturned page, rounded up; fit_to_image sets
/// the picture's and the texts; number, document, source and image are left to the caller. Words
/// are brought to Unicode NFC; ligatures and CJK radicals, which are shapes of the font and not
/// what a reader would type, become letters. Characters without ink (is_ignorable) are left out,
/// but for joiners beside a virama or between emoji, which change what their neighbours look like;
/// a soft hyphen becomes "-" at the end of a word, and within one stays for keep_what_is_shown(),
/// which sees the picture. Words that run upwards, downwards or stand on their heads go to
/// `rotated_words`. Throws IoError "<name>: ..." when the text
/// is cut off or is not this format.
std::vector<Page> parse_bbox_layout(std::string_view xhtml, double dots_per_inch,
                                    const std::string& name);

}  // namespace lectern
