// Inputs of pairs as streams of items: JSON lines, a JSON list, a folder. What is held of an input
// is one record, and of a folder the names of one folder in it. Private to this room.
#pragma once

#include "data/pairs/item.h"

#include <filesystem>
#include <memory>
#include <string>

namespace lectern::detail {

class ItemReader {
 public:
  virtual ~ItemReader() = default;
  /// The next record, whether it can be used or not; false at the end. Throws IoError when the
  /// input cannot be read.
  virtual bool next(PairItem& item) = 0;
  /// "JSON lines", "a JSON list", "a folder".
  virtual std::string describe() const = 0;
};

/// Opens an input anew. Throws IoError naming it when it cannot be read, or is neither.
std::unique_ptr<ItemReader> open_input(const std::filesystem::path& path,
                                       const FormOptions& options);

}  // namespace lectern::detail
