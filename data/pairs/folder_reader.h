// A folder in which name.png, .jpg or .pdf lies beside name.md or .txt. Private to this room.
#pragma once

#include "data/pairs/reader.h"

namespace lectern::detail {

/// Folders inside it count as well; all in order of name. Throws IoError when it cannot be listed.
std::unique_ptr<ItemReader> open_folder(const std::filesystem::path& path,
                                        const FormOptions& options);

}  // namespace lectern::detail
