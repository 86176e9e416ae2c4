// Helpers that every test shares: where the fixtures are, comparisons that say where and by how
// much two tensors differ, expected error messages.
#pragma once

#include "core/tensor.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace lectern::testing {

/// The source folder (from the environment variable LECTERN_SOURCE that ctest sets, else found by
/// walking up from the working directory).
std::filesystem::path source_folder();
/// The first of LECTERN_FAMILIES, by which fixtures, recipes and configurations of a whole model
/// are called.
inline std::string first_family() { return LECTERN_FIRST_FAMILY; }
/// tests/fixtures/<name>
std::filesystem::path fixture(std::string_view name);
/// A fresh empty folder that is deleted when the object goes.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Random normal tensor, a function of (seed, shape).
Tensor random_tensor(const Shape& shape, std::uint64_t seed, DType dtype = DType::f32,
                     double standard_deviation = 1.0);

/// Passes when |got - want| <= bound * max(1, max |want|) for all elements; a failure names the
/// worst index, both values and the bound. NaN never passes.
::testing::AssertionResult near(const Tensor& got, const Tensor& want, double bound);

/// Runs `f` and passes when it throws a lectern::Error whose message has every one of `parts`.
::testing::AssertionResult throws_with(const std::function<void()>& f,
                                       std::initializer_list<std::string_view> parts);

}  // namespace lectern::testing
