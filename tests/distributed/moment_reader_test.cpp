#include "distributed/moment_reader.h"

#include "distributed/parallel_adamw.h"
#include "tests/testing.h"

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

class Moments : public ::testing::Test {
 protected:
  SafetensorsFolder save(const std::vector<std::pair<std::string, Tensor>>& tensors) const {
    save_safetensors(folder_.path() / "optimizer.safetensors", tensors);
    return SafetensorsFolder::open(folder_.path(), "optimizer");
  }
  testing::TemporaryFolder folder_;
};

TEST_F(Moments, AnyPartOfWholeTensorsAndOfPieces) {
  const Tensor whole = random_tensor({4, 6}, 1), flat = random_tensor({50}, 2);
  const auto piece = [&](std::int64_t begin, std::int64_t end) {
    return std::pair{piece_name("b[0]", begin, end) + ".exp_avg_sq",
                     flat.slice(0, begin, end).clone()};
  };
  const auto files = save({{"a.weight.exp_avg", whole},
                           piece(32, 50),
                           piece(0, 16),
                           piece(16, 32),
                           {"selection_bias.1", random_tensor({4}, 3)}});
  const MomentReader reader(files);
  EXPECT_TRUE(near(reader.read("a.weight.exp_avg", 0, 24), whole.view({-1}), 0));
  EXPECT_TRUE(near(reader.read("a.weight.exp_avg", 5, 7), whole.view({-1}).slice(0, 5, 7), 0));
  for (const auto& [begin, end] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {0, 50}, {3, 40}, {16, 32}, {15, 17}, {49, 50}, {20, 20}})
    EXPECT_TRUE(near(reader.read("b[0].exp_avg_sq", begin, end), flat.slice(0, begin, end), 0));
}

TEST_F(Moments, WhatIsMissingIsNamed) {
  const auto files =
      save({{"a[0:4].exp_avg", Tensor::zeros({4})}, {"a[8:9].exp_avg", Tensor::zeros({1})}});
  const MomentReader reader(files);
  EXPECT_TRUE(throws_with([&] { reader.read("a.exp_avg", 2, 9); },
                          {"elements 2 to 9 of a.exp_avg", "none from 4 on"}));
  EXPECT_TRUE(throws_with([&] { reader.read("b.exp_avg", 0, 1); }, {"b.exp_avg", "from 0 on"}));
}

TEST_F(Moments, APieceThatIsNotItsNameIsRefused) {
  const auto files = save({{"a[0:4].exp_avg", Tensor::zeros({5})}});
  EXPECT_TRUE(throws_with([&] { MomentReader reader(files); },
                          {"a[0:4].exp_avg must have 4 elements", "got 5"}));
}

}  // namespace
}  // namespace lectern
