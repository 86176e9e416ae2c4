// A rank alone, what belongs to no group, and what a build lacks.
#include "distributed/groups.h"

#include "core/parallel.h"
#include "distributed/reduce_parts.h"
#include "distributed/replica_check.h"
#include "distributed/world.h"
#include "tests/testing.h"

#include <array>
#include <cstdlib>
#include <cstring>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

TEST(SingleGroup, EveryOperationIsItself) {
  const auto alone = make_single_group();
  EXPECT_EQ(alone->rank(), 0);
  EXPECT_EQ(alone->size(), 1);
  const Tensor x = random_tensor({5, 3}, 1), want = x.clone();
  const Tensor out = Tensor::zeros({5, 3});
  alone->all_reduce(x);
  alone->broadcast(x, 0);
  EXPECT_TRUE(near(x, want, 0));
  alone->reduce_scatter(x, out, {5});
  EXPECT_TRUE(near(out, want, 0));
  out.fill(0);
  alone->all_gather(x, out);
  EXPECT_TRUE(near(out, want, 0));
  out.fill(0);
  alone->all_to_all(x, {5}, out, {5});
  EXPECT_TRUE(near(out, want, 0));
  alone->all_gather(x, x);  // in place
  EXPECT_TRUE(near(x, want, 0));
  Handle barrier = alone->start_barrier();
  EXPECT_TRUE(barrier.test());
  EXPECT_EQ(alone->split(-1, 0), nullptr);
  EXPECT_EQ(alone->split(3, 0)->size(), 1);
  EXPECT_EQ(alone->traffic(Exchange::all_reduce).operations, 1);
  EXPECT_EQ(alone->traffic(Exchange::all_reduce).bytes_sent, 0);
  EXPECT_TRUE(throws_with([&] { alone->send(x, 0); }, {"must be another rank"}));
  EXPECT_EQ(all_gather_text(*alone, "text"), std::vector<std::string>{"text"});
  EXPECT_EQ(reduced(*alone, 2.5), 2.5);
  EXPECT_NO_THROW(check_replicas(*alone, "anything", 1));
  EXPECT_GE(threads_for_rank(*alone), 1);
}

TEST(SingleGroup, NothingToSend) {
  const auto alone = make_single_group();
  const Tensor none = Tensor::empty({0, 4});
  EXPECT_NO_THROW(alone->all_reduce(none));
  EXPECT_NO_THROW(alone->all_to_all(none, {0}, none, {0}));
  EXPECT_EQ(all_gather_text(*alone, ""), std::vector<std::string>{""});
}

TEST(ReduceParts, AddsInOrderAndRoundsOnce) {
  // 2^24 + 1 + 1: from the left both ones are lost in f32; in bf16 the sum in f32 rounds once.
  const std::array<float, 1> big{16777216.0f}, one{1.0f};
  std::array<float, 1> out{};
  const std::array<const void*, 3> terms{big.data(), one.data(), one.data()};
  reduce_parts(terms, out.data(), 1, DType::f32, Reduction::sum);
  EXPECT_EQ(out[0], 16777216.0f);
  const std::array<const void*, 3> other{one.data(), one.data(), big.data()};
  reduce_parts(other, out.data(), 1, DType::f32, Reduction::sum);
  EXPECT_EQ(out[0], 16777218.0f);

  const std::array<BFloat16, 1> large{BFloat16(256.0f)}, half{BFloat16(0.75f)};
  std::array<BFloat16, 1> sum{};
  const std::array<const void*, 3> halves{large.data(), half.data(), half.data()};
  reduce_parts(halves, sum.data(), 1, DType::bf16, Reduction::sum);
  EXPECT_EQ(static_cast<float>(sum[0]), 258.0f);  // 257.5 rounded once; 256 when rounded each time
}

TEST(ReduceParts, AnyNumberOfThreadsGivesTheSameBits) {
  const std::int64_t n = 300001;
  const Tensor a = random_tensor({n}, 1), b = random_tensor({n}, 2), c = random_tensor({n}, 3);
  const std::array<const void*, 3> terms{a.raw(), b.raw(), c.raw()};
  const int before = thread_count();
  std::vector<Tensor> results;
  for (const int threads : {1, 3}) {
    set_thread_count(threads);
    results.push_back(Tensor::empty({n}));
    reduce_parts(terms, results.back().raw(), n, DType::f32, Reduction::sum);
  }
  set_thread_count(before);
  EXPECT_EQ(std::memcmp(results[0].raw(), results[1].raw(), results[0].bytes()), 0);
  for (const std::int64_t i : {std::int64_t{0}, std::int64_t{1023}, std::int64_t{1024}, n - 1})
    EXPECT_EQ(results[0].data<float>()[i],
              (a.data<float>()[i] + b.data<float>()[i]) + c.data<float>()[i]);
}

class Environment : public ::testing::Test {
 protected:
  void SetUp() override { clear(); }
  void TearDown() override { clear(); }
  static void clear() {
    for (const char* name :
         {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK", "SLURM_STEP_NUM_TASKS"})
      ::unsetenv(name);
  }
};

TEST_F(Environment, SaysHowManyRanksWereStarted) {
  EXPECT_EQ(launched_ranks(), 1);
  ::setenv("SLURM_STEP_NUM_TASKS", "8", 1);
  EXPECT_EQ(launched_ranks(), 1) << "a batch script's own shell";
  ::setenv("PMIX_RANK", "0", 1);
  EXPECT_EQ(launched_ranks(), 8);
  ::setenv("PMI_SIZE", "3", 1);
  EXPECT_EQ(launched_ranks(), 3);
  ::setenv("OMPI_COMM_WORLD_SIZE", "nonsense", 1);
  EXPECT_EQ(launched_ranks(), 3);
  ::setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
  EXPECT_EQ(launched_ranks(), 2);
  ::setenv("OMPI_COMM_WORLD_SIZE", "0", 1);
  EXPECT_EQ(launched_ranks(), 3);
}

TEST_F(Environment, WithoutALauncherTheWorldIsOneRank) {
  const World world;
  EXPECT_EQ(world.size(), 1);
  EXPECT_EQ(world.ranks()->name(), "single");
}

TEST(Builds, SayWhatTheyLack) {
  const auto alone = make_single_group();
  const Device device{DeviceType::cuda, 1};
  if (has_nccl()) {
    EXPECT_EQ(make_nccl_group(alone, device)->name(), "nccl");  // the library has what it must
  } else {
    EXPECT_TRUE(
        throws_with([&] { make_nccl_group(alone, device); }, {"ranks on cuda:1", "has no NCCL"}));
  }
  if (!has_mpi()) {
    EXPECT_TRUE(throws_with([] { make_mpi_group(); }, {"has no MPI", "libopenmpi-dev"}));
  }
}

}  // namespace
}  // namespace lectern
