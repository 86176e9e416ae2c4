// Reading whole pages with a model whose view is too small for one: the page is cut into runs of
// words (data/layout/page_segments.h), each is read in a view of its own, and the texts are joined.
#pragma once

#include "data/layout/page_segments.h"
#include "nn/model_config.h"
#include "recipes/read/reader.h"

#include <cstdint>
#include <string>
#include <vector>

namespace lectern {

/// Longest answer for a piece and pieces read together, unless the caller says otherwise.
inline constexpr std::int64_t kPieceTokens = 64;
inline constexpr std::int64_t kPiecesAtOnce = 64;

/// What the model sees of each piece: laid into a view as the pieces that it was trained on.
/// `level` is level_page() of the page.
std::vector<ImageViews> piece_views(const Image& level, const std::vector<PagePiece>& pieces,
                                    const ReadingSettings& settings);

/// Where a page has text, and the page as that was found: itself, or its inverse where it is light
/// on dark, which the model was not trained on.
struct FoundText {
  PageSegments segments;
  Image page;
};
/// Text of a page that is not light in the main (median luminance below 192 of 255) is also looked
/// for in its inverse; the one with more words counts, of equals the page as it is.
FoundText find_dark_or_light_text(Image page);

/// The page's text: lines joined by "\n", blocks by "\n\n"; empty when nothing is found. The page
/// must have the resolution settings.piece_dpi.
std::string read_by_pieces(Reader& reader, const ReadingSettings& settings, const Image& page);

/// The picture at `to` dots per inch when it has `from` of them. Throws ShapeError when it is empty
/// or would have over 2^28 pixels.
Image rescaled(Image picture, double from, double to);

}  // namespace lectern
