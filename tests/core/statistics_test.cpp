#include "core/statistics.h"

#include "tests/testing.h"

#include <cmath>

namespace lectern {
namespace {

TEST(Median, IsTheMiddleOrTheMeanOfTwo) {
  EXPECT_EQ(median({}), 0);
  EXPECT_EQ(median({7}), 7);
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 3, 2}), 2.5);
}

TEST(Quantile, LeavesTheShareBefore) {
  const std::vector<int> ten = {9, 0, 8, 1, 7, 2, 6, 3, 5, 4};
  EXPECT_EQ(quantile(ten, 0), 0);
  EXPECT_EQ(quantile(ten, 0.5), 5);
  EXPECT_EQ(quantile(ten, 0.8), 8);
  EXPECT_EQ(quantile(ten, 0.99), 9);
  EXPECT_EQ(quantile(std::vector<double>{2.5}, 0.5), 2.5);
}

TEST(MeanWithError, HandComputed) {
  EXPECT_EQ(mean_with_error({}).count, 0U);
  const MeanWithError one = mean_with_error({3});
  EXPECT_EQ(one.mean, 3);
  EXPECT_EQ(one.error, 0);
  // 1, 2, 3, 6: mean 3, squares 4 + 1 + 0 + 9, divided by 3 and by 4.
  const MeanWithError four = mean_with_error({1, 2, 3, 6});
  EXPECT_EQ(four.mean, 3);
  EXPECT_DOUBLE_EQ(four.error, std::sqrt(14.0 / 12));
  EXPECT_EQ(four.count, 4U);
}

}  // namespace
}  // namespace lectern
