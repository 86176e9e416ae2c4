// For test programs that run on several ranks.
#pragma once

#include "distributed/communicator.h"
#include "tests/testing.h"

#include <vector>

namespace lectern::testing {

/// All ranks of this program.
Communicator& ranks();

/// A tensor that every rank can make for every other: random values, small whole numbers for
/// integer dtypes.
inline Tensor tensor_of_rank(int rank, const Shape& shape, DType dtype, std::uint64_t seed) {
  const Tensor normal = random_tensor(shape, seed * 1000 + static_cast<std::uint64_t>(rank));
  if (is_floating(dtype)) return normal.to(dtype);
  const Tensor out = Tensor::empty(shape, dtype);
  dispatch_all(dtype, [&]<typename T>() {
    for (std::int64_t i = 0; i < normal.numel(); ++i)
      out.data<T>()[i] = static_cast<T>(static_cast<float>(50 + 10 * normal.data<float>()[i]));
  });
  return out;
}

inline ::testing::AssertionResult same_bits(const Tensor& got, const Tensor& want) {
  if (got.shape() != want.shape() || got.dtype() != want.dtype())
    return ::testing::AssertionFailure() << got.describe() << " and " << want.describe();
  const auto* a = static_cast<const unsigned char*>(got.raw());
  const auto* b = static_cast<const unsigned char*>(want.raw());
  for (std::size_t i = 0; i < got.bytes(); ++i)
    if (a[i] != b[i])
      return ::testing::AssertionFailure()
             << got.describe() << ": element " << i / size_of(got.dtype()) << " differs";
  return ::testing::AssertionSuccess();
}

}  // namespace lectern::testing
