#include "tests/testing.h"

#include "core/random.h"

#include <unistd.h>

#include <cmath>
#include <cstdlib>

namespace lectern::testing {

std::filesystem::path source_folder() {
  if (const char* folder = std::getenv("LECTERN_SOURCE")) return folder;
  auto folder = std::filesystem::current_path();
  while (!std::filesystem::exists(folder / "core" / "tensor.h") && folder != folder.root_path())
    folder = folder.parent_path();
  return folder;
}

std::filesystem::path fixture(std::string_view name) {
  return source_folder() / "tests" / "fixtures" / name;
}

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "lectern-test-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) fail<IoError>("TemporaryFolder: mkdtemp failed");
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Tensor random_tensor(const Shape& shape, std::uint64_t seed, DType dtype,
                     double standard_deviation) {
  Tensor out = Tensor::empty(shape, dtype);
  Random(seed, "test" + to_string(shape)).fill_normal(out, 0.0, standard_deviation);
  return out;
}

::testing::AssertionResult near(const Tensor& got, const Tensor& want, double bound) {
  if (!got.defined() || !want.defined() || got.shape() != want.shape())
    return ::testing::AssertionFailure()
           << "got " << got.describe() << ", want " << want.describe();
  const Tensor a = got.to(DType::f64).contiguous(), b = want.to(DType::f64).contiguous();
  const double *x = a.data<double>(), *y = b.data<double>();
  double magnitude = 1.0, worst = -1.0;
  std::int64_t at = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    magnitude = std::max(magnitude, std::abs(y[i]));
    const double difference =
        std::isnan(x[i]) != std::isnan(y[i]) || std::isnan(x[i]) ? HUGE_VAL : std::abs(x[i] - y[i]);
    if (difference > worst) {
      worst = difference;
      at = i;
    }
  }
  if (a.numel() == 0 || worst <= bound * magnitude) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << "worst at flat index " << at << " of " << got.describe() << ": got " << x[at]
         << ", want " << y[at] << ", |difference| " << worst << " > " << bound << " x "
         << magnitude;
}

::testing::AssertionResult throws_with(const std::function<void()>& f,
                                       std::initializer_list<std::string_view> parts) {
  try {
    f();
  } catch (const Error& error) {
    const std::string_view message = error.what();
    for (const auto part : parts)
      if (message.find(part) == std::string_view::npos)
        return ::testing::AssertionFailure()
               << "message \"" << message << "\" lacks \"" << part << "\"";
    return ::testing::AssertionSuccess();
  } catch (const std::exception& error) {
    return ::testing::AssertionFailure() << "threw a foreign exception: " << error.what();
  }
  return ::testing::AssertionFailure() << "did not throw";
}

}  // namespace lectern::testing
