// Many small pictures on one, each with its text below, to look at.
#pragma once

#include "data/images/image.h"
#include "data/synthetic/text_painter.h"

#include <cstdint>
#include <string>
#include <vector>

namespace lectern {

struct ContactEntry {
  Image picture;
  std::string caption;  // lines are shown one below the other
  FontFace face;        // has every character of the caption
};

/// Pictures `zoom` times as large (nearest pixel), in rows of `columns`, every cell as large as the
/// largest. Throws ConfigError unless columns and zoom are at least 1.
Image contact_sheet(const std::vector<ContactEntry>& entries, std::int64_t columns,
                    std::int64_t zoom = 1);

}  // namespace lectern
