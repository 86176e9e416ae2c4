// What expert parallelism sends, counted by the communicator, against what the routing needs.
#include "autograd/ops/exchanged_experts.h"
#include "autograd/ops/reduce.h"
#include "distributed/expert_parallel.h"
#include "tests/distributed/ranks.h"

#include <functional>
#include <random>

namespace lectern {
namespace {

using testing::random_tensor;
using testing::ranks;

constexpr std::int64_t kChoices = 2, kWidth = 12, kInner = 8, kPerRank = 3;
constexpr std::int64_t kFloat = 4, kIndex = 4, kCount = 8;  // bytes

/// Chosen experts of each token of a rank, as every rank can tell for every other.
using Routing = std::function<std::vector<std::int32_t>(int rank, std::int64_t experts)>;

struct Needed {
  std::int64_t out = 0, kept = 0, in = 0;  // pairs to other ranks, to this one, from others
};

/// From the indices alone.
Needed needed(const Routing& routing, std::int64_t experts) {
  const int self = ranks().rank();
  Needed out;
  for (int from = 0; from < ranks().size(); ++from)
    for (const std::int32_t expert : routing(from, experts)) {
      const int to = static_cast<int>(expert / kPerRank);
      if (from == self && to == self) ++out.kept;
      if (from == self && to != self) ++out.out;
      if (from != self && to == self) ++out.in;
    }
  return out;
}

void expect_exact_traffic(const Routing& routing) {
  const auto group = ranks().split(0, ranks().rank());
  ExpertParallel exchange(group);
  const std::int64_t experts = kPerRank * group->size();
  const std::vector<std::int32_t> chosen = routing(group->rank(), experts);
  const auto tokens = static_cast<std::int64_t>(chosen.size()) / kChoices;
  const Needed want = needed(routing, experts);
  const Variable x(random_tensor({tokens, kWidth}, 1), true);
  const Variable weights(random_tensor({tokens, kChoices}, 2), true);
  const Variable gate_up(random_tensor({kPerRank, 2 * kInner, kWidth}, 3), true);
  const Variable down(random_tensor({kPerRank, kWidth, kInner}, 4), true);
  const auto sent = [&] { return group->traffic(Exchange::all_to_all).bytes_sent; };

  const Variable y = exchanged_experts(x, weights, Tensor::from(chosen, {tokens, kChoices}),
                                       gate_up, down, experts, exchange);
  // Numbers of rows; rows, their weights and experts; results of what came here.
  const std::int64_t counts = (group->size() - 1) * kCount;
  EXPECT_EQ(sent(),
            counts + want.out * (kWidth * kFloat + kFloat + kIndex) + want.in * kWidth * kFloat);
  EXPECT_EQ(exchange.statistics().rows_sent, want.out);
  EXPECT_EQ(exchange.statistics().rows_kept, want.kept);
  EXPECT_EQ(exchange.statistics().most_received, want.in + want.kept);
  EXPECT_EQ(exchange.statistics().exchanges, 1);

  const std::int64_t forward = sent();
  sum(y).backward();
  // Gradients of the results; gradients of the rows that came here, and of their weights.
  EXPECT_EQ(sent() - forward, want.out * kWidth * kFloat + want.in * (kWidth * kFloat + kFloat));
  for (const Exchange other : {Exchange::all_reduce, Exchange::reduce_scatter, Exchange::all_gather,
                               Exchange::broadcast, Exchange::send})
    EXPECT_EQ(group->traffic(other).bytes_sent, 0);
}

TEST(ExpertTraffic, IsWhatTheRoutingNeeds) {
  for (const unsigned seed : {1u, 2u, 3u})
    expect_exact_traffic([seed](int rank, std::int64_t experts) {
      std::mt19937 random(seed * 100 + static_cast<unsigned>(rank));
      std::vector<std::int32_t> out;
      for (int token = 0; token < 17 + 5 * rank; ++token) {
        const auto first = static_cast<std::int32_t>(random() % static_cast<unsigned>(experts));
        out.push_back(first);
        out.push_back(static_cast<std::int32_t>((first + 1) % experts));
      }
      return out;
    });
}

TEST(ExpertTraffic, OfUnevenRoutings) {
  // All to the last rank; nothing at all from rank 0; everything at home.
  expect_exact_traffic([](int, std::int64_t experts) {
    const auto last = static_cast<std::int32_t>(experts - 1);
    return std::vector<std::int32_t>{last, last - 1, last - 1, last - 2};
  });
  expect_exact_traffic([](int rank, std::int64_t) {
    return rank == 0 ? std::vector<std::int32_t>{} : std::vector<std::int32_t>{0, 1, 1, 2, 2, 0};
  });
  expect_exact_traffic([](int rank, std::int64_t) {
    const auto own = static_cast<std::int32_t>(rank * kPerRank);
    return std::vector<std::int32_t>{own, own + 1, own + 2, own};
  });
}

}  // namespace
}  // namespace lectern
