#include "distributed/reduce_parts.h"

#include "core/parallel.h"

#include <algorithm>
#include <array>

namespace lectern {
namespace {

/// A block of the sum stays in the nearest cache while the parts pass by.
constexpr std::int64_t kBlock = 1024;

template <typename Accumulator, typename T>
void reduce_block(std::span<const void* const> parts, T* out, std::int64_t begin,
                  std::int64_t count, Reduction reduction) {
  std::array<Accumulator, kBlock> sum;
  const T* first = static_cast<const T*>(parts[0]) + begin;
  for (std::int64_t i = 0; i < count; ++i)
    sum[static_cast<std::size_t>(i)] = static_cast<Accumulator>(first[i]);
  for (std::size_t p = 1; p < parts.size(); ++p) {
    const T* part = static_cast<const T*>(parts[p]) + begin;
    const auto each = [&](auto&& combine) {
      for (std::int64_t i = 0; i < count; ++i) {
        Accumulator& at = sum[static_cast<std::size_t>(i)];
        at = combine(at, static_cast<Accumulator>(part[i]));
      }
    };
    switch (reduction) {
      case Reduction::sum:
        each([](Accumulator a, Accumulator b) { return static_cast<Accumulator>(a + b); });
        break;
      case Reduction::max:
        each([](Accumulator a, Accumulator b) { return std::max(a, b); });
        break;
      case Reduction::min:
        each([](Accumulator a, Accumulator b) { return std::min(a, b); });
        break;
    }
  }
  for (std::int64_t i = 0; i < count; ++i)
    out[begin + i] = static_cast<T>(sum[static_cast<std::size_t>(i)]);
}

template <typename Accumulator, typename T>
void reduce_as(std::span<const void* const> parts, void* out, std::int64_t count,
               Reduction reduction) {
  const std::int64_t blocks = (count + kBlock - 1) / kBlock;
  parallel_for(blocks, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      const std::int64_t at = block * kBlock;
      reduce_block<Accumulator>(parts, static_cast<T*>(out), at, std::min(kBlock, count - at),
                                reduction);
    }
  });
}

}  // namespace

void reduce_parts(std::span<const void* const> parts, void* out, std::int64_t count, DType dtype,
                  Reduction reduction) {
  switch (dtype) {
    case DType::f64:
      return reduce_as<double, double>(parts, out, count, reduction);
    case DType::f32:
      return reduce_as<float, float>(parts, out, count, reduction);
    case DType::bf16:
      return reduce_as<float, BFloat16>(parts, out, count, reduction);
    case DType::i64:
      return reduce_as<std::int64_t, std::int64_t>(parts, out, count, reduction);
    case DType::i32:
      return reduce_as<std::int32_t, std::int32_t>(parts, out, count, reduction);
    case DType::u8:
      break;
  }
  fail<DTypeError>("reduce: dtype must be f32, f64, bf16, i32 or i64, got u8");
}

}  // namespace lectern
