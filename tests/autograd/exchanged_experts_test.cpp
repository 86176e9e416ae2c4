// Experts spread over ranks against experts() on everything; the ranks are threads here.
#include "autograd/ops/exchanged_experts.h"

#include "autograd/ops/experts.h"
#include "core/random.h"
#include "tests/testing.h"

#include <gtest/gtest.h>

#include <barrier>
#include <thread>

namespace lectern {
namespace {

/// What the ranks of a test show each other.
struct Board {
  explicit Board(std::int64_t ranks) : barrier(ranks), rows(ranks), counts(ranks) {}
  std::barrier<> barrier;
  std::vector<Tensor> rows;
  std::vector<RowExchange::Counts> counts;
};

class ThreadExchange : public RowExchange {
 public:
  ThreadExchange(Board& board, std::int64_t rank) : board_(board), rank_(rank) {}
  std::int64_t rank() const override { return rank_; }
  std::int64_t ranks() const override { return static_cast<std::int64_t>(board_.rows.size()); }

  Counts counts(const Counts& send) override {
    board_.counts[at()] = send;
    board_.barrier.arrive_and_wait();
    Counts out;
    for (const Counts& other : board_.counts) out.push_back(other[at()]);
    board_.barrier.arrive_and_wait();
    return out;
  }
  void start(const Tensor& rows, const Counts& send, const Tensor& out,
             const Counts& receive) override {
    started_.push_back({rows, send, out, receive});
  }
  void wait() override {
    for (const Started& one : started_) {
      board_.rows[at()] = one.rows;
      board_.counts[at()] = one.send;
      board_.barrier.arrive_and_wait();
      std::int64_t to = 0;
      for (std::size_t r = 0; r < board_.rows.size(); ++r) {
        std::int64_t from = 0;
        for (std::size_t before = 0; before < at(); ++before) from += board_.counts[r][before];
        const std::int64_t rows = board_.counts[r][at()];
        EXPECT_EQ(rows, one.receive[r]);
        one.out.slice(0, to, to + rows).copy_from(board_.rows[r].slice(0, from, from + rows));
        to += rows;
      }
      EXPECT_EQ(to, one.out.dim(0));
      board_.barrier.arrive_and_wait();
    }
    started_.clear();
  }

 private:
  struct Started {
    Tensor rows;
    Counts send;
    Tensor out;
    Counts receive;
  };
  std::size_t at() const { return static_cast<std::size_t>(rank_); }

  Board& board_;
  std::int64_t rank_;
  std::vector<Started> started_;
};

constexpr std::int64_t kWidth = 5, kInner = 3, kChoices = 2;

struct Case {
  std::int64_t ranks = 1, experts = 4;
  std::vector<std::int64_t> tokens;  // of each rank
  bool one_expert = false;           // all tokens choose expert 1, twice
};

struct Leaves {
  Variable x, weights, gate_up, down;
  Tensor indices, cotangent;
};

Leaves whole_leaves(const Case& c) {
  std::int64_t tokens = 0;
  for (const std::int64_t n : c.tokens) tokens += n;
  Leaves out;
  out.x = Variable(testing::random_tensor({tokens, kWidth}, 1, DType::f64), true);
  out.weights = Variable(testing::random_tensor({tokens, kChoices}, 2, DType::f64), true);
  out.gate_up =
      Variable(testing::random_tensor({c.experts, 2 * kInner, kWidth}, 3, DType::f64), true);
  out.down = Variable(testing::random_tensor({c.experts, kWidth, kInner}, 4, DType::f64), true);
  out.cotangent = testing::random_tensor({tokens, kWidth}, 5, DType::f64);
  out.indices = Tensor::empty({tokens, kChoices}, DType::i32);
  Random random(6, "choice");
  for (std::int64_t i = 0; i < tokens * kChoices; ++i)
    out.indices.data<std::int32_t>()[i] =
        c.one_expert
            ? 1
            : static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(c.experts)));
  return out;
}

Variable part(const Variable& whole, std::int64_t begin, std::int64_t end) {
  return Variable(whole.value().slice(0, begin, end).contiguous(), true);
}

void expect_part(const Variable& leaf, const Variable& whole, std::int64_t begin, std::int64_t end,
                 const char* name) {
  ASSERT_TRUE(leaf.grad().defined()) << name;
  EXPECT_TRUE(testing::near(leaf.grad(), whole.grad().slice(0, begin, end).contiguous(), 1e-12))
      << name;
}

void check(const Case& c) {
  const Leaves all = whole_leaves(c);
  const Variable want = experts(all.x, all.weights, all.indices, all.gate_up, all.down);
  want.backward(all.cotangent);
  Board board(c.ranks);
  std::vector<std::thread> threads;
  std::int64_t first_token = 0;
  for (std::int64_t rank = 0; rank < c.ranks; ++rank) {
    const std::int64_t begin = first_token;
    const std::int64_t end = first_token += c.tokens[static_cast<std::size_t>(rank)];
    threads.emplace_back([&, rank, begin, end] {
      ThreadExchange exchange(board, rank);
      const std::int64_t each = c.experts / c.ranks, e = each * rank;
      const Variable x = part(all.x, begin, end), weights = part(all.weights, begin, end);
      const Variable gate_up = part(all.gate_up, e, e + each), down = part(all.down, e, e + each);
      int ran = 0;
      const Variable got =
          exchanged_experts(x, weights, all.indices.slice(0, begin, end).contiguous(), gate_up,
                            down, c.experts, exchange, [&] { ++ran; });
      EXPECT_EQ(ran, 1);
      EXPECT_TRUE(
          testing::near(got.value(), want.value().slice(0, begin, end).contiguous(), 1e-12));
      got.backward(all.cotangent.slice(0, begin, end).contiguous());
      expect_part(x, all.x, begin, end, "x");
      expect_part(weights, all.weights, begin, end, "weights");
      expect_part(gate_up, all.gate_up, e, e + each, "gate_up");
      expect_part(down, all.down, e, e + each, "down");
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(ExchangedExperts, AreTheExpertsOfOneProcess) {
  check({.ranks = 1, .experts = 4, .tokens = {7}});
  check({.ranks = 2, .experts = 4, .tokens = {5, 8}});
  check({.ranks = 3, .experts = 6, .tokens = {1, 4, 9}});
  check({.ranks = 4, .experts = 4, .tokens = {6, 3, 2, 5}});
}

TEST(ExchangedExperts, RanksWithoutTokensAndExpertsWithoutRows) {
  check({.ranks = 2, .experts = 4, .tokens = {0, 3}});
  check({.ranks = 2, .experts = 4, .tokens = {3, 0}});
  check({.ranks = 4, .experts = 4, .tokens = {2, 1, 2, 3}, .one_expert = true});
}

TEST(ExchangedExperts, RefusesExpertsThatDoNotFit) {
  const Leaves all = whole_leaves({.ranks = 1, .experts = 4, .tokens = {2}});
  Board board(1);
  ThreadExchange exchange(board, 0);
  EXPECT_TRUE(testing::throws_with(
      [&] {
        exchanged_experts(all.x, all.weights, all.indices, all.gate_up, all.down, 8, exchange);
      },
      {"exchanged_experts", "got 4 of 8"}));
}

}  // namespace
}  // namespace lectern
