// Checkpoints that are written while the weights change.
#include "recipes/checkpoint/saver.h"

#include "core/parallel.h"
#include "distributed/groups.h"
#include "nn/families.h"
#include "tests/nn/tiny_model.h"
#include "tests/recipes/tiny_run.h"
#include "tests/testing.h"

#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <set>
#include <thread>

namespace lectern {
namespace {

using testing::first_difference;
using testing::tensors_of;
using testing::throws_with;
using Tensors = std::map<std::string, Tensor>;

testing::AnyConfig tiny_model_config(const std::filesystem::path& folder) {
  write_file(folder / "config.json", testing::tiny_config().dump());
  return read_model_config(folder / "config.json");
}

/// A model in training, with a saver whose thread may be held at a point.
class CheckpointSaverTest : public ::testing::Test {
 protected:
  CheckpointSaverTest()
      : world_(make_single_group()),
        mesh_(world_, 1, 1),
        made_(testing::make_model(tiny_model_config(folder_.path()), 1)),
        model_(*made_),
        optimizer_({.learning_rate = 0.01}, world_) {
    model_.store().freeze({"model.sam_model."});
    optimizer_.add_group("all", model_.store().trainable(), 0.1, world_);
    state_.selection_bias[1] = Tensor::full({4}, 0.5);
    update();
  }

  std::filesystem::path checkpoints() const { return folder_.path() / "checkpoints"; }

  CheckpointSaverOptions options(std::int64_t keep = 2) {
    CheckpointSaverOptions out;
    out.folder = checkpoints();
    out.tokenizer_json = "{}";
    out.keep = keep;
    out.completed = [this](const std::filesystem::path& path, double) {
      completed_.push_back(path.filename().string());
    };
    out.at_point = [this](std::string_view point) {
      while (point == held_at_ && is_held_)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (point == broken_at_) throw IoError(fmt::format("no space at {}", point));
    };
    return out;
  }

  /// One step of training, as the trainer makes it.
  void update(CheckpointSaver* saver = nullptr) {
    optimizer_.clear_gradients();
    for (auto& [name, variable] : model_.store().trainable())
      variable.set_grad(Tensor::full(variable.shape(), 0.1 * static_cast<double>(state_.step + 1)));
    if (saver != nullptr) saver->before_update();
    optimizer_.step(0.01, 1.0);
    state_.selection_bias[1].fill(static_cast<double>(state_.step));
    ++state_.step;
  }

  Tensors weights() const {
    Tensors out;
    for (const auto& [name, value] : model_.store().state()) out[name] = value.clone();
    return out;
  }
  Tensors moments() const {
    Tensors out;
    for (const MomentPiece& piece : optimizer_.state()) {
      out[piece.parameter + ".exp_avg"] = piece.exp_avg.clone();
      out[piece.parameter + ".exp_avg_sq"] = piece.exp_avg_sq.clone();
    }
    for (const auto& [layer, bias] : state_.selection_bias) out[bias_name(layer)] = bias.clone();
    return out;
  }

  static void wait_while_busy(const CheckpointSaver& saver) {
    while (saver.is_busy()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  std::set<std::string> names() const {
    std::set<std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator(checkpoints()))
      out.insert(entry.path().filename().string());
    return out;
  }

  testing::TemporaryFolder folder_;
  std::shared_ptr<Communicator> world_;
  Mesh mesh_;
  std::unique_ptr<OcrModel> made_;
  OcrModel& model_;
  ParallelAdamW optimizer_;
  RunState state_;
  std::vector<std::string> completed_;
  std::string held_at_, broken_at_;
  std::atomic<bool> is_held_{false};
};

TEST_F(CheckpointSaverTest, HoldsWhatWasThereWhenItBegan) {
  // The thread has not begun, is half-way, or has only to write the end: training goes on.
  for (const char* point : {"started", "copied", "written", "rename"}) {
    held_at_ = point;
    is_held_ = true;
    CheckpointSaver saver(model_, model_.store(), optimizer_, mesh_, options());
    const Tensors weights_then = weights(), moments_then = moments();
    const std::int64_t step = state_.step;
    saver.begin(state_);
    for (int i = 0; i < 2; ++i) update(&saver);
    if (held_at_ == "rename") {
      wait_while_busy(saver);
      saver.advance();
      update(&saver);
    }
    EXPECT_TRUE(saver.is_busy()) << point;
    EXPECT_FALSE(is_complete(checkpoints() / checkpoint_name(step))) << point;
    is_held_ = false;
    while (completed_.empty()) {
      wait_while_busy(saver);
      saver.advance();
      update(&saver);
    }
    EXPECT_EQ(completed_, std::vector<std::string>{checkpoint_name(step)});
    completed_.clear();
    const auto path = checkpoints() / checkpoint_name(step);
    ASSERT_TRUE(is_complete(path)) << point;
    EXPECT_EQ(first_difference(tensors_of(path), weights_then), "") << point;
    EXPECT_EQ(first_difference(tensors_of(path, "optimizer"), moments_then), "") << point;
    EXPECT_NE(first_difference(weights(), weights_then), "") << point;
    const auto state = nlohmann::json::parse(read_file(path / "state.json"));
    EXPECT_EQ(state["step"], step);
    EXPECT_EQ(state["selection_bias_layers"], nlohmann::json({1}));
    EXPECT_EQ(state["optimizer_steps"].begin().value(), step);
  }
}

TEST_F(CheckpointSaverTest, TheNextOneWaitsAndOldOnesGo) {
  held_at_ = "written";
  is_held_ = true;
  CheckpointSaver saver(model_, model_.store(), optimizer_, mesh_, options(1));
  saver.begin(state_);
  update(&saver);
  std::thread release([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    is_held_ = false;
  });
  saver.begin(state_);  // step 2
  release.join();
  EXPECT_EQ(completed_, std::vector<std::string>{"step-000001"});
  saver.finish();
  EXPECT_EQ(completed_, (std::vector<std::string>{"step-000001", "step-000002"}));
  EXPECT_EQ(names(), std::set<std::string>{"step-000002"});
  saver.finish();
  saver.advance();
  EXPECT_EQ(completed_.size(), 2u);
}

TEST_F(CheckpointSaverTest, AnErrorBehindComesAtTheNextStepAndLeavesNothing) {
  CheckpointSaver saver(model_, model_.store(), optimizer_, mesh_, options());
  saver.begin(state_);
  saver.finish();
  for (const char* point : {"started", "copied", "written", "sync", "mark", "rename"}) {
    broken_at_ = point;
    update(&saver);
    saver.begin(state_);
    update(&saver);
    EXPECT_TRUE(throws_with(
        [&] {
          for (int phase = 0; phase < 2; ++phase) {
            wait_while_busy(saver);
            saver.advance();
          }
        },
        {"no space at", point}))
        << point;
    EXPECT_EQ(names(), std::set<std::string>{"step-000001"}) << point;
    EXPECT_FALSE(saver.is_busy());
    saver.advance();  // nothing is under way any more
  }
  broken_at_.clear();
  const Tensors now = weights();
  saver.begin(state_);
  saver.finish();
  EXPECT_EQ(first_difference(tensors_of(checkpoints() / checkpoint_name(state_.step)), now), "");
}

TEST_F(CheckpointSaverTest, ARunThatEndsByAnotherErrorKeepsIt) {
  CheckpointSaver saver(model_, model_.store(), optimizer_, mesh_, options());
  saver.begin(state_);
  saver.finish_quietly();
  EXPECT_EQ(names(), std::set<std::string>{"step-000001"});
  broken_at_ = "written";
  update(&saver);
  saver.begin(state_);
  saver.finish_quietly();
  EXPECT_EQ(names(), std::set<std::string>{"step-000001"});
}

TEST_F(CheckpointSaverTest, DroppedInTheMiddleItLeavesNothing) {
  {
    CheckpointSaver saver(model_, model_.store(), optimizer_, mesh_, options());
    saver.begin(state_);
    saver.finish();
    update(&saver);
    saver.begin(state_);
  }
  EXPECT_EQ(names(), std::set<std::string>{"step-000001"});
}

/// Leaves the process what its heap has, some megabytes of it, and no address space beyond.
void use_up_memory() {
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);  // what is freed stays in the heap
  std::vector<std::string> slack(1000, std::string(4000, 'x'));
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlimit limit{pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)), RLIM_INFINITY};
  ::setrlimit(RLIMIT_AS, &limit);
}

/// Neither copies nor a thread can be had: the checkpoint is written by the thread that trains.
TEST_F(CheckpointSaverTest, WithoutMemoryForCopiesItWritesAtOnce) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer needs its address space";
#endif
  const pid_t process = ::fork();
  if (process == 0) {
    set_thread_count(1);  // no threads that the child has not
    CheckpointSaver saver(model_, model_.store(), optimizer_, mesh_, options());
    use_up_memory();
    int status = 1;
    try {
      saver.begin(state_);
      const bool written = !saver.is_busy();
      saver.finish();
      status = written && is_complete(checkpoints() / checkpoint_name(state_.step)) ? 0 : 2;
    } catch (const std::exception& error) {
      ::perror(error.what());
    }
    ::_exit(status);
  }
  int status = -1;
  ::waitpid(process, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(CheckpointSaverTest, RecordsAreOnTheDiskBeforeTheCheckpointIs) {
  for (const bool asynchronous : {true, false}) {
    CheckpointSaverOptions asked = options();
    asked.asynchronous = asynchronous;
    int calls = 0;
    const auto path = checkpoints() / checkpoint_name(state_.step);
    asked.before_complete = [&] {
      ++calls;
      EXPECT_FALSE(is_complete(path));
    };
    CheckpointSaver saver(model_, model_.store(), optimizer_, mesh_, asked);
    saver.begin(state_);
    EXPECT_EQ(is_complete(path), !asynchronous);
    saver.finish();
    EXPECT_TRUE(is_complete(path));
    EXPECT_EQ(calls, 1);
    EXPECT_EQ(first_difference(tensors_of(path), weights()), "");
    update(&saver);
  }
}

}  // namespace
}  // namespace lectern
