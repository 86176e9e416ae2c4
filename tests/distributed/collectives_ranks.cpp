// Every operation of a communicator against a naive reference, on as many ranks as mpirun started.
#include "distributed/groups.h"
#include "distributed/replica_check.h"
#include "distributed/world.h"
#include "tests/distributed/ranks.h"

#include <chrono>
#include <numeric>
#include <thread>

namespace lectern {
namespace {

using testing::ranks;
using testing::same_bits;
using testing::tensor_of_rank;
using testing::throws_with;

const std::vector<DType> kReducible = {DType::f32, DType::f64, DType::bf16, DType::i32, DType::i64};
const std::vector<DType> kAll = {DType::f32, DType::f64, DType::bf16,
                                 DType::i32, DType::i64, DType::u8};

/// The definition: in the order of ranks, one element after the other, bf16 in f32.
template <typename Sum, typename T>
void reduce_naively(const std::vector<Tensor>& terms, const Tensor& out, Reduction reduction) {
  for (std::int64_t i = 0; i < out.numel(); ++i) {
    Sum sum = static_cast<Sum>(terms[0].data<T>()[i]);
    for (std::size_t r = 1; r < terms.size(); ++r) {
      const Sum term = static_cast<Sum>(terms[r].data<T>()[i]);
      if (reduction == Reduction::sum) sum = static_cast<Sum>(sum + term);
      if (reduction == Reduction::max) sum = term > sum ? term : sum;
      if (reduction == Reduction::min) sum = term < sum ? term : sum;
    }
    out.data<T>()[i] = static_cast<T>(sum);
  }
}

Tensor reduced_reference(const Shape& shape, DType dtype, std::uint64_t seed, Reduction reduction) {
  std::vector<Tensor> terms;
  for (int r = 0; r < ranks().size(); ++r) terms.push_back(tensor_of_rank(r, shape, dtype, seed));
  const Tensor out = Tensor::empty(shape, dtype);
  switch (dtype) {
    case DType::f64:
      reduce_naively<double, double>(terms, out, reduction);
      break;
    case DType::f32:
      reduce_naively<float, float>(terms, out, reduction);
      break;
    case DType::bf16:
      reduce_naively<float, BFloat16>(terms, out, reduction);
      break;
    case DType::i64:
      reduce_naively<std::int64_t, std::int64_t>(terms, out, reduction);
      break;
    default:
      reduce_naively<std::int32_t, std::int32_t>(terms, out, reduction);
  }
  return out;
}

/// Sizes around the ranks, odd ones, and one that takes the way of large messages.
const std::vector<std::int64_t> kSizes = {0, 1, 2, 3, 5, 64, 1023, 4097, 70001};

TEST(Collectives, AllReduce) {
  for (const DType dtype : kReducible)
    for (const Reduction reduction : {Reduction::sum, Reduction::max, Reduction::min})
      for (const std::int64_t n : kSizes) {
        const Tensor tensor = tensor_of_rank(ranks().rank(), {n}, dtype, 1);
        ranks().all_reduce(tensor, reduction);
        EXPECT_TRUE(same_bits(tensor, reduced_reference({n}, dtype, 1, reduction)))
            << name_of(dtype) << " " << n;
      }
}

TEST(Collectives, AllReduceOfScalarsAndMatrices) {
  for (const Shape& shape : {Shape{}, Shape{3, 0}, Shape{7, 11}}) {
    const Tensor tensor = tensor_of_rank(ranks().rank(), shape, DType::f32, 2);
    ranks().all_reduce(tensor);
    EXPECT_TRUE(same_bits(tensor, reduced_reference(shape, DType::f32, 2, Reduction::sum)));
  }
}

/// Rows that rank r has: uneven, and none for some.
RankCounts uneven_counts(std::int64_t scale) {
  RankCounts counts;
  for (int r = 0; r < ranks().size(); ++r) counts.push_back(r % 3 == 1 ? 0 : scale + r);
  return counts;
}

std::int64_t sum_until(const RankCounts& counts, int rank) {
  return std::accumulate(counts.begin(), counts.begin() + rank, std::int64_t{0});
}

TEST(Collectives, ReduceScatter) {
  const int me = ranks().rank();
  for (const DType dtype : kReducible)
    for (const std::int64_t scale : {0, 1, 7, 5000}) {
      const RankCounts counts = uneven_counts(scale);
      const std::int64_t rows = sum_until(counts, ranks().size());
      const std::int64_t own = counts[static_cast<std::size_t>(me)];
      const std::int64_t begin = sum_until(counts, me);
      const Tensor input = tensor_of_rank(me, {rows, 3}, dtype, 3);
      const Tensor output = Tensor::empty({own, 3}, dtype);
      ranks().reduce_scatter(input, output, counts);
      const Tensor want =
          reduced_reference({rows, 3}, dtype, 3, Reduction::sum).slice(0, begin, begin + own);
      EXPECT_TRUE(same_bits(output, want)) << name_of(dtype) << " " << scale;
      EXPECT_TRUE(same_bits(input, tensor_of_rank(me, {rows, 3}, dtype, 3)));
      // In place.
      ranks().reduce_scatter(input, input.slice(0, begin, begin + own), counts);
      EXPECT_TRUE(same_bits(input.slice(0, begin, begin + own), want));
    }
  const Tensor even = tensor_of_rank(me, {ranks().size() * 4}, DType::f32, 4);
  const Tensor part = Tensor::empty({4});
  ranks().reduce_scatter(even, part);
  EXPECT_TRUE(same_bits(part, reduced_reference({ranks().size() * 4}, DType::f32, 4, Reduction::sum)
                                  .slice(0, me * 4, me * 4 + 4)));
}

TEST(Collectives, AllGather) {
  const int me = ranks().rank();
  for (const DType dtype : kAll)
    for (const std::int64_t scale : {0, 1, 9, 6000}) {
      const RankCounts counts = uneven_counts(scale);
      const Tensor output = Tensor::empty({sum_until(counts, ranks().size()), 2}, dtype);
      const Tensor own = tensor_of_rank(me, {counts[static_cast<std::size_t>(me)], 2}, dtype, 5);
      ranks().all_gather(own, output, counts);
      for (int r = 0; r < ranks().size(); ++r) {
        const std::int64_t count = counts[static_cast<std::size_t>(r)];
        const Tensor part = output.slice(0, sum_until(counts, r), sum_until(counts, r) + count);
        EXPECT_TRUE(same_bits(part, tensor_of_rank(r, {count, 2}, dtype, 5)));
      }
      // In place: the own part of the output is the input.
      const Tensor again = Tensor::zeros(output.shape(), dtype);
      const std::int64_t begin = sum_until(counts, me);
      const Tensor mine = again.slice(0, begin, begin + counts[static_cast<std::size_t>(me)]);
      mine.copy_from(own);
      ranks().all_gather(mine, again, counts);
      EXPECT_TRUE(same_bits(again, output));
    }
}

/// Rows from one rank to another: some none, some many.
std::int64_t rows_between(int from, int to, std::int64_t scale) {
  return (from + 2 * to) % 3 == 0 ? 0 : scale * (from + 1) + to;
}

/// What `from` sends to `to`.
Tensor message(int from, int to, std::int64_t scale, DType dtype) {
  return tensor_of_rank(from * 16 + to, {rows_between(from, to, scale), 5}, dtype, 6);
}

TEST(Collectives, AllToAll) {
  const int me = ranks().rank(), all = ranks().size();
  for (const DType dtype : kAll)
    for (const std::int64_t scale : {0, 1, 13, 1500}) {
      RankCounts send, receive;
      for (int r = 0; r < all; ++r) {
        send.push_back(rows_between(me, r, scale));
        receive.push_back(rows_between(r, me, scale));
      }
      const Tensor input = Tensor::empty({sum_until(send, all), 5}, dtype);
      const Tensor output = Tensor::empty({sum_until(receive, all), 5}, dtype);
      for (int r = 0; r < all; ++r)
        input.slice(0, sum_until(send, r), sum_until(send, r) + send[static_cast<std::size_t>(r)])
            .copy_from(message(me, r, scale, dtype));
      const std::int64_t before = ranks().traffic(Exchange::all_to_all).bytes_sent;
      ranks().all_to_all(input, send, output, receive);
      for (int r = 0; r < all; ++r)
        EXPECT_TRUE(
            same_bits(output.slice(0, sum_until(receive, r),
                                   sum_until(receive, r) + receive[static_cast<std::size_t>(r)]),
                      message(r, me, scale, dtype)));
      const std::int64_t others = sum_until(send, all) - send[static_cast<std::size_t>(me)];
      EXPECT_EQ(ranks().traffic(Exchange::all_to_all).bytes_sent - before,
                others * 5 * static_cast<std::int64_t>(size_of(dtype)));
    }
}

TEST(Collectives, Broadcast) {
  for (const DType dtype : kAll)
    for (int root = 0; root < ranks().size(); ++root)
      for (const std::int64_t n : {0, 1, 5001}) {
        const Tensor tensor = tensor_of_rank(ranks().rank(), {n}, dtype, 7);
        ranks().broadcast(tensor, root);
        EXPECT_TRUE(same_bits(tensor, tensor_of_rank(root, {n}, dtype, 7)));
      }
}

TEST(Collectives, SendAndReceiveMatchByTagAndOrder) {
  const int me = ranks().rank(), all = ranks().size();
  if (all == 1) return;
  const int next = (me + 1) % all, previous = (me + all - 1) % all;
  std::vector<Handle> handles;
  std::vector<Tensor> received;
  for (int i = 0; i < 6; ++i) {
    const std::int64_t n = i == 3 ? 0 : i * 4000 + 1;
    handles.push_back(ranks().start_send(
        tensor_of_rank(me, {n}, DType::f32, 10 + static_cast<unsigned>(i)), next, i / 2));
  }
  for (const int i : {4, 5, 0, 1, 2, 3}) {  // tags in another order, the same order within a tag
    const std::int64_t n = i == 3 ? 0 : i * 4000 + 1;
    received.push_back(Tensor::empty({n}));
    handles.push_back(ranks().start_receive(received.back(), previous, i / 2));
  }
  for (Handle& handle : handles) handle.wait();
  std::size_t at = 0;
  for (const int i : {4, 5, 0, 1, 2, 3}) {
    EXPECT_TRUE(same_bits(received[at], tensor_of_rank(previous, received[at].shape(), DType::f32,
                                                       10 + static_cast<unsigned>(i))));
    ++at;
  }
}

/// Many operations at once, waited for in another order on every rank.
TEST(Collectives, ManyUnderWay) {
  const int me = ranks().rank();
  std::vector<Handle> handles;
  std::vector<Tensor> tensors;
  for (std::uint64_t i = 0; i < 24; ++i) {
    tensors.push_back(
        tensor_of_rank(me, {static_cast<std::int64_t>(i) * 1000}, DType::f32, 100 + i));
    handles.push_back(ranks().start_all_reduce(tensors.back()));
  }
  for (std::size_t i = 0; i < handles.size(); ++i)
    handles[(i * 7 + static_cast<std::size_t>(me) * 5) % handles.size()].wait();
  for (std::uint64_t i = 0; i < 24; ++i)
    EXPECT_TRUE(same_bits(
        tensors[i], reduced_reference(tensors[i].shape(), DType::f32, 100 + i, Reduction::sum)));
}

TEST(Collectives, ADroppedHandleDoesNotCancel) {
  const Tensor tensor = tensor_of_rank(ranks().rank(), {30000}, DType::f32, 8);
  { const Handle dropped = ranks().start_all_reduce(tensor); }
  // Nobody can ask whether it is done, but it goes on in whatever else the group is asked to do.
  const Tensor want = reduced_reference({30000}, DType::f32, 8, Reduction::sum);
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!same_bits(tensor, want) && std::chrono::steady_clock::now() < limit) ranks().progress();
  EXPECT_TRUE(same_bits(tensor, want));
  ranks().barrier();
}

TEST(Collectives, TestMovesAnOperationOn) {
  const Tensor tensor = tensor_of_rank(ranks().rank(), {50000}, DType::f32, 9);
  Handle handle = ranks().start_all_reduce(tensor);
  while (!handle.test()) ranks().progress();
  EXPECT_TRUE(same_bits(tensor, reduced_reference({50000}, DType::f32, 9, Reduction::sum)));
  EXPECT_TRUE(handle.test());
  handle.wait();
}

TEST(Collectives, BarrierWaitsForTheLast) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  if (ranks().rank() == ranks().size() - 1)
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
  ranks().barrier();
  if (ranks().size() > 1) {
    EXPECT_GE(Clock::now() - start, std::chrono::milliseconds(30));
  }
}

TEST(Collectives, Split) {
  const int me = ranks().rank(), all = ranks().size();
  const auto parity = ranks().split(me % 2, -me);  // in reverse order
  ASSERT_NE(parity, nullptr);
  EXPECT_EQ(parity->size(), (all + 1 - me % 2) / 2);
  EXPECT_EQ(parity->rank(), parity->size() - 1 - me / 2);
  const Tensor sum = Tensor::full({1}, me, DType::i32);
  parity->all_reduce(sum);
  int want = 0;
  for (int r = me % 2; r < all; r += 2) want += r;
  EXPECT_EQ(sum.item(), want);

  const auto some = ranks().split(me == 0 ? -1 : 0, 0);
  EXPECT_EQ(some == nullptr, me == 0);
  if (some) {
    EXPECT_EQ(some->size(), all - 1);
  }
}

/// Operations of a group that go on while the group above is waited for.
TEST(Collectives, GroupsDoNotBlockOneAnother) {
  const auto parity = ranks().split(ranks().rank() % 2, ranks().rank());
  const Tensor small = Tensor::full({20000}, 1.0), large = Tensor::full({20000}, 2.0);
  Handle first = parity->start_all_reduce(small);
  Handle second = ranks().start_all_reduce(large);
  if (ranks().rank() % 2 == 0) {
    first.wait();
    second.wait();
  } else {
    second.wait();
    first.wait();
  }
  EXPECT_EQ(small.slice(0, 7, 8).item(), parity->size());
  EXPECT_EQ(large.slice(0, 7, 8).item(), 2 * ranks().size());
}

TEST(Collectives, TextOfEveryRank) {
  const int me = ranks().rank();
  const auto all = all_gather_text(ranks(), std::string(static_cast<std::size_t>(me * me), 'x'));
  ASSERT_EQ(static_cast<int>(all.size()), ranks().size());
  for (std::size_t r = 0; r < all.size(); ++r) EXPECT_EQ(all[r], std::string(r * r, 'x'));
}

TEST(Collectives, WaitingTooLongNamesTheSilentRank) {
  const int all = ranks().size();
  if (all == 1) return;
  const Tensor tensor = Tensor::full({10}, 1.0);
  if (ranks().rank() == 0) {
    set_wait_limit(0.2);
    EXPECT_TRUE(throws_with([&] { ranks().all_reduce(tensor); },
                            {"all_reduce: rank 0 of ", "for rank ", "did not answer"}));
    set_wait_limit(60);
  } else {
    std::this_thread::sleep_for(std::chrono::milliseconds(600));
    ranks().all_reduce(tensor);
  }
  for (int i = 0; i < 2; ++i) ranks().barrier();
  EXPECT_EQ(tensor.slice(0, 0, 1).item(), all);  // it went on in the end
}

TEST(Collectives, ReplicasThatDifferAreNamed) {
  EXPECT_NO_THROW(check_replicas(ranks(), "same", 5));
  if (ranks().size() < 3) return;
  const std::string mine = ranks().rank() == 1 ? "other" : "same";
  EXPECT_TRUE(throws_with([&] { check_replicas(ranks(), mine, 5); },
                          {"after step 5", "replica 1 differs"}));
}

TEST(Collectives, ThreadsAreSharedOut) {
  const int threads = threads_for_rank(ranks());
  EXPECT_GE(threads, 1);
  EXPECT_LE(threads, static_cast<int>(std::thread::hardware_concurrency()));
}

TEST(Collectives, BadArgumentsAreRefusedBeforeAnythingIsSent) {
  const int all = ranks().size();
  const Tensor f32 = Tensor::zeros({4 * all}), odd = Tensor::zeros({4 * all + 1});
  const Tensor strided = Tensor::zeros({3, 4}).transpose(0, 1);
  EXPECT_TRUE(throws_with([&] { ranks().all_reduce(strided); }, {"all_reduce", "contiguous"}));
  EXPECT_TRUE(throws_with([&] { ranks().all_reduce(Tensor()); }, {"must be defined"}));
  EXPECT_TRUE(throws_with([&] { ranks().all_reduce(Tensor::zeros({2}, DType::u8)); },
                          {"all_reduce: dtype must be", "u8"}));
  EXPECT_TRUE(throws_with([&] { ranks().reduce_scatter(f32, Tensor::zeros({5 * all})); },
                          {"output must have 4 rows"}));
  EXPECT_TRUE(throws_with([&] { ranks().all_gather(Tensor::zeros({4}, DType::i32), f32); },
                          {"equal dtype"}));
  EXPECT_TRUE(throws_with([&] { ranks().all_gather(f32, f32, RankCounts(all + 1u, 0)); },
                          {"must have one number for each of"}));
  RankCounts negative(static_cast<std::size_t>(all), 4);
  negative[0] = -1;
  EXPECT_TRUE(throws_with([&] { ranks().all_to_all(f32, negative, f32, negative); },
                          {"send_counts must be >= 0, got -1"}));
  EXPECT_TRUE(throws_with([&] { ranks().broadcast(f32, all); }, {"root must be in"}));
  EXPECT_TRUE(throws_with([&] { ranks().send(f32, ranks().rank()); }, {"must be another rank"}));
  if (all > 1) {
    EXPECT_TRUE(throws_with([&] { ranks().reduce_scatter(odd, f32); }, {"must divide by"}));
    const int other = (ranks().rank() + 1) % all;
    EXPECT_TRUE(throws_with([&] { ranks().send(f32, other, 40000); }, {"tag must be in"}));
  }
}

}  // namespace
}  // namespace lectern
