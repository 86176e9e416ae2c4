// Several ranks with a GPU each: every operation against the same on the host, messages in any
// order, and training on every kind of mesh against one CPU.
#include "distributed/groups.h"
#include "distributed/world.h"
#include "recipes/machine/device.h"
#include "recipes/train/trainer.h"
#include "tests/cuda/check_cuda.h"
#include "tests/recipes/tiny_run.h"

#include <numeric>

namespace lectern::testing {
/// All ranks of this program (tests/distributed/rank_main.cpp).
Communicator& ranks();
}  // namespace lectern::testing

namespace lectern {
namespace {

using testing::is_equal;
using testing::throws_with;

/// Each rank's own device; the tests are skipped where there are too few.
class NcclRanks : public ::testing::Test {
 protected:
  void SetUp() override {
    try {
      device_ = use_device("cuda", testing::ranks());
    } catch (const Error& error) {
      GTEST_SKIP() << "skipped: " << error.what();
    }
    if (!has_nccl()) GTEST_SKIP() << "skipped: this build has no NCCL";
    // Another handle of the job's ranks: the test program keeps its own.
    host_ = testing::ranks().split(0, testing::ranks().rank());
    group_ = make_nccl_group(host_, device_);
  }

  int rank() const { return group_->rank(); }
  int size() const { return group_->size(); }
  Tensor there(const Tensor& x) const { return x.to(device_); }
  /// Small whole numbers: their sums are exact in every dtype and order.
  Tensor numbers(const Shape& shape, DType dtype, int of_rank, int seed = 0) const {
    const Tensor out = Tensor::empty(shape, DType::f32);
    for (std::int64_t i = 0; i < out.numel(); ++i)
      out.data<float>()[i] = static_cast<float>((i * 5 + of_rank * 3 + seed) % 11);
    return out.to(dtype);
  }

  Device device_;
  std::shared_ptr<Communicator> host_, group_;
};

TEST_F(NcclRanks, EveryOperationIsThatOfTheHost) {
  RankCounts uneven;
  for (int r = 0; r < size(); ++r) uneven.push_back(r == 1 ? 0 : 3 + 2 * r);
  const std::int64_t total = std::accumulate(uneven.begin(), uneven.end(), std::int64_t{0});
  const std::int64_t own = uneven[static_cast<std::size_t>(rank())];
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::i32, DType::i64}) {
    SCOPED_TRACE(name_of(dtype));
    for (const Reduction reduction : {Reduction::sum, Reduction::max, Reduction::min}) {
      const Tensor mine = numbers({total, 3}, dtype, rank());
      Tensor want = mine.clone(), got = there(mine);
      host_->all_reduce(want, reduction);
      group_->all_reduce(got, reduction);
      EXPECT_TRUE(is_equal(got, want)) << "all_reduce";
      want = Tensor::zeros({own, 3}, dtype);
      got = there(want);
      host_->reduce_scatter(mine, want, uneven, reduction);
      group_->reduce_scatter(there(mine), got, uneven, reduction);
      EXPECT_TRUE(is_equal(got, want)) << "reduce_scatter, uneven";
      const Tensor whole = numbers({size() * 5}, dtype, rank());
      want = Tensor::zeros({5}, dtype);
      got = there(want);
      host_->reduce_scatter(whole, want, {}, reduction);
      group_->reduce_scatter(there(whole), got, {}, reduction);
      EXPECT_TRUE(is_equal(got, want)) << "reduce_scatter";
    }
    const Tensor part = numbers({own, 2}, dtype, rank());
    Tensor want = Tensor::zeros({total, 2}, dtype), got = there(want);
    host_->all_gather(part, want, uneven);
    group_->all_gather(there(part), got, uneven);
    EXPECT_TRUE(is_equal(got, want)) << "all_gather, uneven";
    // In place, as the buckets do.
    const Tensor flat = there(numbers({size() * 4}, dtype, rank()));
    group_->all_gather(flat.slice(0, rank() * 4, rank() * 4 + 4), flat);
    want = Tensor::zeros({size() * 4}, dtype);
    host_->all_gather(numbers({size() * 4}, dtype, rank()).slice(0, rank() * 4, rank() * 4 + 4),
                      want);
    EXPECT_TRUE(is_equal(flat, want)) << "all_gather, in place";
    for (int root = 0; root < size(); ++root) {
      got = there(numbers({9}, dtype, rank()));
      group_->broadcast(got, root);
      EXPECT_TRUE(is_equal(got, numbers({9}, dtype, root))) << "broadcast";
    }
  }
}

TEST_F(NcclRanks, RowsGoWhereTheCountsSay) {
  for (const int round : {0, 1, 2}) {
    RankCounts send, receive;
    const auto count = [&](int from, int to) { return (from * 2 + to * 3 + round) % 4; };
    for (int r = 0; r < size(); ++r) {
      send.push_back(count(rank(), r));
      receive.push_back(count(r, rank()));
    }
    const std::int64_t out = std::accumulate(send.begin(), send.end(), std::int64_t{0});
    const std::int64_t in = std::accumulate(receive.begin(), receive.end(), std::int64_t{0});
    const Tensor mine = numbers({out, 3}, DType::f32, rank(), round);
    const Tensor want = Tensor::zeros({in, 3}), got = there(want);
    host_->all_to_all(mine, send, want, receive);
    group_->all_to_all(there(mine), send, got, receive);
    EXPECT_TRUE(is_equal(got, want)) << round;
  }
  const Tensor none = Tensor::empty({0, 3}, DType::f32, device_);
  const RankCounts zeros(static_cast<std::size_t>(size()), 0);
  group_->all_to_all(none, zeros, none, zeros);
}

TEST_F(NcclRanks, NeighboursTakeMessagesInAnyOrder) {
  group_->prepare_neighbours();
  const int next = (rank() + 1) % size(), before = (rank() + size() - 1) % size();
  // Both directions at once, two tags each; the receiver takes the later one first.
  std::vector<Handle> sends;
  for (const int tag : {4, 7}) {
    sends.push_back(
        group_->start_send(there(numbers({6 + tag}, DType::f32, rank(), tag)), next, tag));
    sends.push_back(
        group_->start_send(there(numbers({3}, DType::bf16, rank(), tag)), before, 10 + tag));
  }
  for (const int tag : {7, 4}) {
    const Tensor forward = Tensor::zeros({6 + tag}, DType::f32, device_);
    group_->receive(forward, before, tag);
    EXPECT_TRUE(is_equal(forward, numbers({6 + tag}, DType::f32, before, tag)));
    const Tensor back = Tensor::zeros({3}, DType::bf16, device_);
    group_->receive(back, next, 10 + tag);
    EXPECT_TRUE(is_equal(back, numbers({3}, DType::bf16, next, tag)));
  }
  for (Handle& each : sends) each.wait();
}

/// All receive first, from both sides: the first exchange must not wait for what comes after it.
TEST_F(NcclRanks, NeighboursBeginByReceiving) {
  if (size() == 1) GTEST_SKIP() << "skipped: one rank";
  const auto group = make_nccl_group(host_->split(0, rank()), device_);
  const double limit = wait_limit();
  set_wait_limit(10);
  group->prepare_neighbours();
  const int next = (rank() + 1) % size(), before = (rank() + size() - 1) % size();
  const Tensor forward = Tensor::zeros({6}, DType::f32, device_),
               back = Tensor::zeros({6}, DType::f32, device_);
  std::vector<Handle> all;
  all.push_back(group->start_receive(forward, before, 1));
  all.push_back(group->start_receive(back, next, 2));
  all.push_back(group->start_send(there(numbers({6}, DType::f32, rank(), 1)), next, 1));
  all.push_back(group->start_send(there(numbers({6}, DType::f32, rank(), 2)), before, 2));
  for (Handle& each : all) each.wait();
  EXPECT_TRUE(is_equal(forward, numbers({6}, DType::f32, before, 1)));
  EXPECT_TRUE(is_equal(back, numbers({6}, DType::f32, next, 2)));
  set_wait_limit(limit);
}

/// Exchanges of several groups that nobody has waited for yet: the emulation refuses two at once.
TEST_F(NcclRanks, GroupsTakeTurns) {
  const auto other = make_nccl_group(host_->split(0, rank()), device_);
  group_->prepare();
  other->prepare();
  const Tensor x = there(numbers({64}, DType::f32, rank())), y = x.clone(), z = x.clone();
  const Tensor want = numbers({64}, DType::f32, rank());
  std::vector<Handle> all;
  all.push_back(group_->start_all_reduce(x));
  all.push_back(other->start_all_reduce(y));
  all.push_back(group_->start_all_reduce(z));
  host_->all_reduce(want);
  all[1].wait();
  EXPECT_TRUE(is_equal(y, want));
  all[2].wait();
  all[0].wait();
  EXPECT_TRUE(is_equal(x, want));
  EXPECT_TRUE(is_equal(z, want));
}

TEST_F(NcclRanks, AWaitOnTheHostMovesSendsOn) {
  group_->prepare_neighbours();
  // Rank 1 waits in MPI for what rank 0 sends only when it has what rank 1 sent from its GPU.
  if (rank() == 1) {
    Handle sent = group_->start_send(there(numbers({5}, DType::f32, 1)), 0, 1);
    const Tensor answer = Tensor::zeros({1});
    group_->receive(answer, 0, 2);
    sent.wait();
  } else if (rank() == 0) {
    const Tensor x = Tensor::zeros({5}, DType::f32, device_);
    group_->receive(x, 1, 1);
    group_->send(Tensor::zeros({1}), 1, 2);
    EXPECT_TRUE(is_equal(x, numbers({5}, DType::f32, 1)));
  }
  group_->barrier();
}

TEST_F(NcclRanks, PartsOfTheGroup) {
  const auto part = group_->split(rank() % 2, rank());
  EXPECT_EQ(part->size(), (size() + 1 - rank() % 2) / 2);
  const Tensor x = there(numbers({4}, DType::i32, rank()));
  const Tensor want = numbers({4}, DType::i32, rank());
  part->all_reduce(x);
  host_->split(rank() % 2, rank())->all_reduce(want);
  EXPECT_TRUE(is_equal(x, want));
}

TEST_F(NcclRanks, SaysWhatIsWrong) {
  const Tensor x = there(Tensor::zeros({4}));
  EXPECT_TRUE(throws_with([&] { group_->send(x, (rank() + 1) % size(), 1); },
                          {"send: tensors on cuda travel between neighbours"}));
  EXPECT_TRUE(throws_with([&] { group_->all_gather(Tensor::zeros({1}), x); }, {"all_gather"}));
  EXPECT_TRUE(throws_with([&] { group_->all_reduce(there(Tensor::zeros({2}, DType::u8))); },
                          {"dtype must be f32"}));
}

TEST_F(NcclRanks, ARankThatDoesNotComeIsNoticed) {
  const auto group = make_nccl_group(host_->split(0, rank()), device_);
  group->prepare();
  const Tensor x = there(numbers({4}, DType::f32, rank()));
  const double limit = wait_limit();
  if (rank() == 0) {
    set_wait_limit(0.3);
    EXPECT_TRUE(throws_with(
        [&] { group->all_reduce(x); },
        {fmt::format("all_reduce: rank 0 of {} waited", size()), "which did not answer"}));
    set_wait_limit(limit);
    testing::ranks().barrier();
  } else {
    testing::ranks().barrier();
    group->all_reduce(x);
  }
}

/// A field of every line of metrics.jsonl.
std::vector<double> metric(const Recipe& recipe, const std::string& field) {
  std::vector<double> out;
  std::istringstream lines(read_file(recipe.run_dir / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json.contains(field)) out.push_back(json[field].get<double>());
  }
  return out;
}

/// Data that rank 0 makes and all ranks use.
class NcclTraining : public NcclRanks {
 protected:
  Recipe recipe(const std::string& run, std::vector<std::string> overrides) {
    if (testing::ranks().rank() == 0 && !data_) data_.emplace(6);
    const std::string file = all_gather_text(
        testing::ranks(), data_ ? data_->recipe_file(run).string() : std::string())[0];
    overrides.insert(overrides.begin(), {"batch.global_size=8", "steps=2", "checkpoint.every=0"});
    return load_recipe(file, overrides);
  }
  std::shared_ptr<Communicator> job() { return testing::ranks().split(0, testing::ranks().rank()); }

  /// Losses and norms of `overrides` on the GPUs are those of one CPU.
  void follows_the_cpu(const std::string& name, const std::vector<std::string>& mesh,
                       const std::vector<std::string>& overrides = {}) {
    SCOPED_TRACE(name);
    const Recipe here = recipe("cpu_" + name, overrides);
    if (rank() == 0) train(here, false);
    testing::ranks().barrier();
    std::vector<std::string> more = overrides;
    more.insert(more.end(), mesh.begin(), mesh.end());
    more.push_back("device=cuda");
    const Recipe there = recipe("cuda_" + name, more);
    train(there, false, false, job());
    testing::ranks().barrier();
    for (const char* field : {"loss", "grad_norm"}) {
      const auto got = metric(there, field), want = metric(here, field);
      ASSERT_EQ(got.size(), 2u);
      for (std::size_t i = 0; i < got.size(); ++i)
        EXPECT_NEAR(got[i], want[i], 1e-3 * std::abs(want[i])) << field << " of step " << i + 1;
    }
    testing::ranks().barrier();
  }

  std::optional<testing::TinyData> data_;
};

TEST_F(NcclTraining, DataParallel) {
  if (size() == 3) GTEST_SKIP() << "skipped: 3 ranks";
  follows_the_cpu("zero", {});
  follows_the_cpu("whole", {"mesh.zero=false", "batch.micro_batch=1"});
}

TEST_F(NcclTraining, ExpertsOnOtherRanks) {
  if (size() == 3) GTEST_SKIP() << "skipped: 3 ranks";
  follows_the_cpu("experts", {"mesh.ep=2"}, {"stage=2", "moe.balance_loss=0.01"});
}

TEST_F(NcclTraining, Pipelines) {
  if (size() == 3) GTEST_SKIP() << "skipped: 3 ranks";
  follows_the_cpu("stages", {"mesh.pp=2"});
  follows_the_cpu("frozen", {"mesh.pp=2", "mesh.ep=" + std::to_string(size() / 2)},
                  {"stage=3", "encoder_cache.enabled=false"});
  follows_the_cpu("chunks",
                  {"mesh.pp=2", "mesh.chunks=2", "mesh.split=[1,2,4,6]", "batch.micro_batch=1"},
                  {"recompute=true"});
}

TEST_F(NcclTraining, GoesOnOnAnotherMesh) {
  if (size() == 3) GTEST_SKIP() << "skipped: 3 ranks";
  const Recipe whole = recipe("undisturbed", {"steps=3"});
  if (rank() == 0) train(whole, false);
  testing::ranks().barrier();
  train(recipe("part", {"device=cuda", "mesh.pp=2", "steps=2"}), false, false, job());
  const Recipe rest = recipe("part", {"device=cuda", "steps=3"});
  train(rest, true, false, job());
  testing::ranks().barrier();
  const auto got = metric(rest, "loss"), want = metric(whole, "loss");
  ASSERT_EQ(got.size(), 3u);
  EXPECT_NEAR(got[2], want[2], 1e-3 * want[2]);
  testing::ranks().barrier();
}

}  // namespace
}  // namespace lectern
