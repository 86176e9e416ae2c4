// Kernels against their CPU twins. The CPU gets what the device gets (values rounded to the storage
// dtype, in f32), so that only the arithmetic differs:
//   f32   |difference| <= 8 eps * length * max(1, max |want|): a few units in the last place for
//   each
//         of `length` terms that are added up
//   bf16  the result is rounded to 8 bits: norm of the difference <= 1e-2 of the norm, and no
//   element
//         off by more than 2^-6 of the largest
#pragma once

#include "core/tensor.h"
#include "cuda/register.h"
#include "tests/testing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace lectern::testing {

inline Device gpu() {
  register_cuda();
  return {DeviceType::cuda, 0};
}

/// These tests are built twice: against the emulation, which always has a device, and for a GPU,
/// where they are skipped when there is none.
class NeedsDevice : public ::testing::Environment {
 public:
  void SetUp() override {
    if (const CudaStatus status = cuda_status(); status.devices.empty())
      GTEST_SKIP() << "skipped: " << status.problem;
  }
};
inline ::testing::Environment* const kNeedsDevice =
    ::testing::AddGlobalTestEnvironment(new NeedsDevice);

inline constexpr DType kStorageTypes[] = {DType::f32, DType::bf16};

struct Both {
  Tensor cpu, cuda;
};

/// An undefined tensor stays undefined.
inline Both both(const Tensor& x, DType dtype = DType::f32) {
  if (!x.defined()) return {};
  const Tensor rounded = x.to(dtype);
  return {rounded.to(DType::f32), rounded.to(gpu())};
}

inline Both random_both(const Shape& shape, std::uint64_t seed, DType dtype = DType::f32,
                        double standard_deviation = 1.0) {
  return both(random_tensor(shape, seed, DType::f32, standard_deviation), dtype);
}

inline ::testing::AssertionResult matches(const Tensor& got, const Tensor& want, DType storage,
                                          double length = 1) {
  if (got.defined() != want.defined())
    return ::testing::AssertionFailure()
           << "got " << got.describe() << ", want " << want.describe();
  if (!got.defined()) return ::testing::AssertionSuccess();
  if (got.device().type != DeviceType::cuda)
    return ::testing::AssertionFailure() << "the result is not on the device: " << got.describe();
  const Tensor a = got.to(Device{}).to(DType::f32), b = want.to(DType::f32).contiguous();
  if (a.shape() != b.shape())
    return ::testing::AssertionFailure()
           << "got " << got.describe() << ", want " << want.describe();
  constexpr double kEpsilon = std::numeric_limits<float>::epsilon();
  if (storage == DType::f32) return near(a, b, 8 * kEpsilon * length);
  double difference = 0, norm = 0, largest = 0, worst = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    const double x = a.data<float>()[i], y = b.data<float>()[i];
    difference += (x - y) * (x - y);
    norm += y * y;
    largest = std::max(largest, std::abs(y));
    worst = std::max(worst, std::isnan(x) ? INFINITY : std::abs(x - y));
  }
  if (std::sqrt(difference) <= 1e-2 * std::sqrt(norm) + 1e-6 && worst <= largest / 64 + 1e-6)
    return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << "bf16: relative error in norm " << std::sqrt(difference / norm)
         << ", largest difference " << worst << " beside " << largest;
}

/// The same bits.
inline ::testing::AssertionResult is_equal(const Tensor& got, const Tensor& want) {
  const Tensor a = got.to(Device{}).contiguous(), b = want.to(Device{}).contiguous();
  if (a.shape() != b.shape() || a.dtype() != b.dtype() ||
      (a.numel() > 0 && std::memcmp(a.raw(), b.raw(), b.bytes()) != 0))
    return ::testing::AssertionFailure() << got.describe() << " differs from " << want.describe();
  return ::testing::AssertionSuccess();
}

}  // namespace lectern::testing
