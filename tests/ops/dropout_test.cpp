#include "autograd/ops/dropout.h"

#include "core/ops/dropout.h"
#include "core/random.h"
#include "tests/ops/check_op.h"

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

Variable dropout_operation(const std::vector<Variable>& in) {
  return dropout(in[0], 0.3, Random(5, "test").key());
}

TEST(Dropout, FollowsTheStream) {
  Random stream(5, "test");
  const RandomKey key = stream.key();
  const Tensor x = random_tensor({3, 7}, 1);
  const Tensor y = dropout(x, 0.3, key);
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const float want = stream.uniform() < 0.3 ? 0.0F : x.data<float>()[i] / 0.7F;
    EXPECT_NEAR(y.data<float>()[i], want, 1e-6) << i;
  }
  EXPECT_TRUE(near(dropout(x, 0, key), x, 0)) << "nothing drops";
}

TEST(Dropout, DropsItsShareAndKeepsTheMean) {
  const Tensor y = dropout(Tensor::full({100000}, 1), 0.25, Random(1, "share").key());
  std::int64_t dropped = 0;
  double sum = 0;
  for (std::int64_t i = 0; i < y.numel(); ++i) {
    dropped += y.data<float>()[i] == 0;
    sum += y.data<float>()[i];
  }
  EXPECT_NEAR(static_cast<double>(dropped), 25000, 500);
  EXPECT_NEAR(sum / 100000, 1, 0.02);
}

TEST(Dropout, Gradients) {
  const Tensor x = random_tensor({5, 9}, 2);
  EXPECT_TRUE(testing::gradient_holds(dropout_operation, {x}));
  EXPECT_TRUE(testing::single_matches_double(dropout_operation, {x}, 1e-6));
}

TEST(Dropout, ThreadsDoNotMatter) {
  EXPECT_TRUE(testing::threads_do_not_matter(dropout_operation, {random_tensor({300, 301}, 3)}));
}

TEST(Dropout, RefusesWhatIsNoProbability) {
  const Tensor x = random_tensor({2}, 1);
  for (const double probability : {-0.1, 1.0})
    EXPECT_TRUE(
        throws_with([&] { dropout(x, probability, {}); }, {"dropout: probability must be"}));
}

}  // namespace
}  // namespace lectern
