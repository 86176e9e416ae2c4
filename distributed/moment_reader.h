// Optimizer state in files, written in pieces by any number of ranks.
//
// A tensor is "<parameter>.exp_avg" (the whole, in the parameter's shape) or
// "<parameter>[begin:end].exp_avg" (elements of the flattened one); the same for exp_avg_sq.
#pragma once

#include "core/io/safetensors.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace lectern {

class MomentReader {
 public:
  /// Takes the names that end in .exp_avg or .exp_avg_sq. Throws IoError for a piece whose size is
  /// not that of its name. `files` must outlive the reader.
  explicit MomentReader(const SafetensorsFolder& files);

  /// Elements [begin, end) of a flattened moment, a copy. Throws IoError naming the moment when the
  /// files do not have all of them.
  Tensor read(const std::string& moment, std::int64_t begin, std::int64_t end) const;

 private:
  struct Piece {
    std::string stored;
    std::int64_t begin = 0, end = 0;
  };
  const SafetensorsFolder& files_;
  std::map<std::string, std::vector<Piece>> pieces_;  // by moment, in order of begin
};

}  // namespace lectern
