// Pieces that are smaller than a line. Private to this room.
#pragma once

#include "data/samples/unit_index.h"

namespace lectern::detail {

/// Runs of words (level line) or windows (level region) of source.cut_width.
UnitIndex index_cut(const CutOptions& source, const Tokenizer& tokenizer);

/// The count of LeftOut that a piece belongs to; null when it passes.
using Reason = std::int64_t LeftOut::*;
/// What a source's text and box filters say of a piece.
Reason reason_in_text(std::string_view text, std::int64_t tokens, const CutOptions& source);
Reason reason_in_box(const Box& box, std::string_view text, std::array<std::int64_t, 2> page);
inline Reason first_of(Reason a, Reason b) { return a != nullptr ? a : b; }
/// True when `next` stands under `last` in the same column, within a line's height.
bool continues(const Box& last, const Box& next);

}  // namespace lectern::detail
