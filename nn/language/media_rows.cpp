#include "nn/language/media_rows.h"

#include "autograd/ops/layout.h"
#include "autograd/ops/rows.h"
#include "core/error.h"

namespace lectern {
namespace {

/// Which row of which source is where, i32 [B * T, 2]; source 0 is the token embedding.
Tensor merge_index(const Tensor& ids, std::int64_t image_token_id,
                   const std::vector<MediaRow>& rows) {
  const std::int64_t positions = ids.numel();
  const std::int32_t* id = ids.data<std::int32_t>();
  Tensor index = Tensor::empty({positions, 2}, DType::i32);
  std::int32_t* out = index.data<std::int32_t>();
  std::size_t next = 0;
  for (std::int64_t i = 0; i < positions; ++i) {
    out[2 * i] = 0;
    out[2 * i + 1] = id[i];
    if (id[i] != image_token_id) continue;
    if (next < rows.size()) {
      out[2 * i] = 1 + rows[next].source;
      out[2 * i + 1] = rows[next].row;
    }
    ++next;
  }
  if (next != rows.size())
    fail<ShapeError>(fmt::format(
        "merge_media: input_ids must hold one image token (id {}) for each of the {} image rows, "
        "got {}",
        image_token_id, rows.size(), next));
  return index;
}

}  // namespace

void MediaLayout::add(std::int32_t source, std::int64_t begin, std::int64_t count) {
  for (std::int64_t i = begin; i < begin + count; ++i)
    rows.push_back({source, static_cast<std::int32_t>(i)});
}

Variable merge_media(const Variable& embedding, std::int64_t image_token_id, const Tensor& ids,
                     const MediaLayout& layout) {
  check_ndim(ids, 2, "merge_media", "input_ids [B, T]");
  check_dtype(ids, DType::i32, "merge_media", "input_ids");
  std::vector<Variable> sources = {embedding};
  sources.insert(sources.end(), layout.sources.begin(), layout.sources.end());
  const Variable rows = select_rows(sources, merge_index(ids, image_token_id, layout.rows));
  return view(rows, {ids.dim(0), ids.dim(1), embedding.dim(1)});
}

}  // namespace lectern
