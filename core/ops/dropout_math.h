// Whether an element stays; see core/ops/dropout.h. CPU and CUDA kernels share it.
#pragma once

#include "core/philox.h"
#include "core/random.h"

namespace lectern::dropout_math {

/// Words below it drop. A probability below 1 gives at most 2^32 - 1: something always stays.
inline std::uint32_t threshold(double probability) {
  return static_cast<std::uint32_t>(probability * 0x1p32);
}

/// Four words for elements 4 index .. 4 index + 3.
LECTERN_HOST_DEVICE inline philox::Words words(std::int64_t index, const RandomKey& key) {
  const auto at = static_cast<std::uint64_t>(index);
  return philox::block({{static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(at >> 32),
                         key.stream0, key.stream1}},
                       key.key0, key.key1);
}

}  // namespace lectern::dropout_math
