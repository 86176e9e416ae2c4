// Reading pages one after the other, each as a whole or piece by piece. Pages share the reader's
// slots: the next one begins while the last words of this one are being read.
#pragma once

#include "recipes/read/piece_reader.h"

#include <functional>
#include <optional>
#include <string>

namespace lectern {

/// The next page, in order; nothing at the end. Read by pieces, it must have the resolution
/// settings.piece_dpi.
using PageSource = std::function<std::optional<Image>()>;
/// Called once a page, in the order of the pages.
using OnPage = std::function<void(std::string text)>;

/// Texts of pages, as wholes or, when settings.by_pieces says so, as read_by_pieces() gives them.
/// What `next` throws ends the reading.
void read_pages(Reader& reader, const ReadingSettings& settings, const PageSource& next,
                const OnPage& on_page);

}  // namespace lectern
