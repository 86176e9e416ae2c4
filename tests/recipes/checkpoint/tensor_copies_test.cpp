#include "recipes/checkpoint/tensor_copies.h"

#include "tests/recipes/tiny_run.h"
#include "tests/testing.h"

#include <thread>

namespace lectern {
namespace {

using testing::random_tensor;
using testing::same_bits;

TEST(TensorCopies, AreWhatWasThere) {
  // Larger than a piece, odd, empty, one element, strided, of another dtype.
  const std::vector<Tensor> live = {random_tensor({1500, 1001}, 1),
                                    random_tensor({7}, 2),
                                    Tensor::empty({0, 3}),
                                    Tensor::full({}, 3),
                                    random_tensor({5, 6}, 3).transpose(0, 1),
                                    Tensor::full({9}, 4, DType::i64)};
  std::vector<TensorCopies::Source> sources;
  std::vector<Tensor> before;
  for (std::size_t i = 0; i < live.size(); ++i) {
    sources.push_back({std::to_string(i), live[i]});
    before.push_back(live[i].clone());
  }
  TensorCopies copies(sources);
  std::thread other([&] { copies.work(); });
  copies.finish();
  for (const Tensor& tensor : live) tensor.fill(-1);
  other.join();
  copies.wait();
  ASSERT_EQ(copies.tensors().size(), live.size());
  for (std::size_t i = 0; i < live.size(); ++i) {
    EXPECT_EQ(copies.tensors()[i].first, std::to_string(i));
    EXPECT_TRUE(same_bits(copies.tensors()[i].second, before[i])) << i;
  }
}

TEST(TensorCopies, WhatDoesNotChangeIsNotCopied) {
  const Tensor frozen = random_tensor({100}, 1), trained = random_tensor({16}, 2);
  TensorCopies copies({{"frozen", frozen, false}, {"trained", trained, true}});
  EXPECT_EQ(copies.bytes(), 64u);
  copies.finish();
  EXPECT_EQ(copies.tensors()[0].second.raw(), frozen.raw());
  EXPECT_NE(copies.tensors()[1].second.raw(), trained.raw());
}

TEST(TensorCopies, OneThreadIsEnough) {
  const Tensor a = random_tensor({3000, 999}, 1);
  TensorCopies copies({{"a", a}});
  copies.work();
  copies.wait();
  copies.finish();
  EXPECT_TRUE(same_bits(copies.tensors()[0].second, a));
  TensorCopies none({});
  none.finish();
  EXPECT_EQ(none.bytes(), 0u);
}

}  // namespace
}  // namespace lectern
