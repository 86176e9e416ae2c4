// Rows of pictures in a sequence of tokens.
#pragma once

#include "autograd/variable.h"

#include <cstdint>
#include <vector>

namespace lectern {

/// One row of a source.
struct MediaRow {
  std::int32_t source = 0;  ///< place in MediaLayout::sources
  std::int32_t row = 0;
};

/// The rows that stand where a sequence has image tokens, in their order.
struct MediaLayout {
  std::vector<Variable> sources;  ///< [rows, C] each
  std::vector<MediaRow> rows;

  /// Appends rows [begin, begin + count) of a source.
  void add(std::int32_t source, std::int64_t begin, std::int64_t count);
};

/// Embedded tokens with the layout's rows in the place of image tokens: embedding [V, C], ids i32
/// [B, T] -> [B, T, C]. Throws ShapeError unless there are as many image tokens as rows.
Variable merge_media(const Variable& embedding, std::int64_t image_token_id, const Tensor& ids,
                     const MediaLayout& layout);

}  // namespace lectern
