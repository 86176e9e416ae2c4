// Token counts of views for tests of data, as a model with two query tables has them.
#pragma once

#include "data/images/views.h"

namespace lectern::testing {

/// A view takes 1 token when it has at most 4 x 4 patches, else 4; then one separator.
inline void set_small_tokens(ViewOptions& view) {
  const auto of_view = [patch = view.patch_size](std::int64_t size) {
    return size / patch <= 4 ? std::int64_t{1} : std::int64_t{4};
  };
  const std::int64_t global = of_view(view.global_size), tile = of_view(view.tile_size);
  view.tokens = [global, tile](const ViewGrid& grid) { return global + grid.tiles() * tile + 1; };
}

}  // namespace lectern::testing
