// Sums over rows that do not depend on the number of threads: rows are cut into chunks whose size
// is a function of the number of rows only, every chunk is summed on its own, and the chunks are
// added in order.
#pragma once

#include "core/parallel.h"

#include <algorithm>
#include <cstdint>

namespace lectern {

struct RowChunks {
  /// At most 128 chunks (bounds the memory for partial sums), of at least 32 rows.
  explicit RowChunks(std::int64_t rows)
      : rows(rows),
        size(std::max<std::int64_t>(32, (rows + 127) / 128)),
        count((rows + size - 1) / size) {}

  std::int64_t begin(std::int64_t chunk) const { return chunk * size; }
  std::int64_t end(std::int64_t chunk) const { return std::min(rows, (chunk + 1) * size); }

  std::int64_t rows;
  std::int64_t size;
  std::int64_t count;
};

/// out[c] = sum over r of x[r, c], in ascending r; x is [rows, columns]. Threads split the columns.
template <typename T>
void sum_rows_in_order(const T* x, std::int64_t rows, std::int64_t columns, T* out) {
  const std::int64_t grain =
      std::max<std::int64_t>(64, (1 << 15) / std::max<std::int64_t>(rows, 1));
  parallel_for(columns, grain, [=](std::int64_t begin, std::int64_t end) {
    std::fill(out + begin, out + end, T(0));
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* row = x + r * columns;
#pragma omp simd
      for (std::int64_t c = begin; c < end; ++c) out[c] += row[c];
    }
  });
}

}  // namespace lectern
