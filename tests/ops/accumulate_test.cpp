#include "core/ops/accumulate.h"

#include "tests/testing.h"

#include <vector>

namespace lectern {
namespace {

using testing::random_tensor;
using testing::throws_with;

TEST(Accumulate, AddsElementByElement) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    // One element more than a thread's share, so that the seam between two shares is inside.
    for (const std::int64_t n : {0, 1, 7, (1 << 15) + 1, 100003}) {
      const Tensor sum = random_tensor({n}, 1).to(dtype), before = sum.clone();
      const Tensor term = random_tensor({n}, 2).to(dtype);
      accumulate(sum, term);
      const Tensor a = before.to(DType::f64), b = term.to(DType::f64), got = sum.to(DType::f64);
      for (std::int64_t i = 0; i < n; ++i) {
        const double exact = a.data<double>()[i] + b.data<double>()[i];
        const double want = dtype == DType::f32 ? static_cast<float>(exact) : exact;
        ASSERT_EQ(got.data<double>()[i], want) << "element " << i << " of " << n;
      }
    }
  }
}

TEST(Accumulate, TermMayBeStridedOrTheSumItself) {
  const Tensor sum = Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3});
  accumulate(sum, Tensor::from(std::vector<float>{10, 20, 30, 40, 50, 60}, {3, 2}).transpose(0, 1));
  const std::vector<float> want{11, 32, 53, 24, 45, 66};
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(sum.data<float>()[i], want[i]);
  accumulate(sum, sum);
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(sum.data<float>()[i], 2 * want[i]);
}

TEST(Accumulate, RefusesWhatDoesNotFit) {
  const Tensor sum = Tensor::zeros({2, 3});
  EXPECT_TRUE(throws_with(
      [&] {
        accumulate(sum, Tensor::zeros({3, 2}));
      },
      {"accumulate", "term must be [2, 3]"}));
  EXPECT_TRUE(throws_with(
      [&] {
        accumulate(sum, Tensor::zeros({2, 3}, DType::f64));
      },
      {"accumulate", "term", "f32"}));
  EXPECT_TRUE(throws_with(
      [&] {
        accumulate(sum.transpose(0, 1), Tensor::zeros({3, 2}));
      },
      {"sum"}));
  const Tensor ids = Tensor::zeros({2}, DType::i32);
  EXPECT_TRUE(throws_with([&] { accumulate(ids, ids); }, {"accumulate", "f32 or f64", "i32"}));
}

}  // namespace
}  // namespace lectern
