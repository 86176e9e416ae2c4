// Checkpoints of a run, written while it goes on.
//
//   begin()        where training stands is noted; a thread copies weights and moments aside
//                  (recipes/checkpoint/tensor_copies.h) while the next forward and backward run
//   before_update()  waits for what is not copied yet: weights are about to change
//   (writing)      each rank's thread writes and syncs its share under a temporary name
//   advance()      once all ranks are done: rank 0's thread writes the index and COMPLETE, renames,
//                  deletes old checkpoints
//   advance()      once that is done: the checkpoint is there for all
//
// The thread that trains makes all calls, and so all messages between ranks; the threads behind it
// make none. Ranks agree at each step whether anyone is_busy(), and all are in the same phase.
#pragma once

#include "distributed/mesh.h"
#include "distributed/parallel_adamw.h"
#include "nn/model.h"
#include "recipes/checkpoint/folder.h"
#include "recipes/checkpoint/tensor_copies.h"
#include "recipes/checkpoint/training_state.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace lectern {

struct CheckpointSaverOptions {
  std::filesystem::path folder;  ///< of the checkpoints; all ranks see it
  std::string tokenizer_json;
  /// "model", or "adapter" where only that is saved: how the files of weights begin.
  const char* stem = "model";
  /// Further files, by name.
  std::map<std::string, std::string> files{};
  std::int64_t keep = 1;  ///< newest complete ones that stay
  /// false: begin() writes, and needs no memory for copies. So does a begin() of a rank that gets
  /// no memory for them.
  bool asynchronous = true;
  /// On rank 0, before COMPLETE is written, and not on the thread that trains.
  std::function<void()> before_complete;
  /// A checkpoint is complete; training stood still for so many seconds because of it.
  std::function<void(const std::filesystem::path&, double seconds)> completed;
  /// Tests: called with "started", "copied", "written" and the points of
  /// CheckpointWriter::commit(), on the thread that has come there; may throw, wait or kill the
  /// process.
  std::function<void(std::string_view)> at_point;
};

class CheckpointSaver {
 public:
  /// `saved`: the model's parameters, or its adapter's.
  CheckpointSaver(const OcrModel& model, const ParameterStore& saved,
                  const ParallelAdamW& optimizer, const Mesh& mesh, CheckpointSaverOptions options);
  /// Waits for this rank's thread. A checkpoint that is not complete is deleted.
  ~CheckpointSaver();
  CheckpointSaver(const CheckpointSaver&) = delete;
  CheckpointSaver& operator=(const CheckpointSaver&) = delete;

  /// Begins the checkpoint `<folder>/step-NNNNNN`, after the end of the one before: config.json,
  /// model-*.safetensors and optimizer-*.safetensors with their indexes, state.json,
  /// tokenizer.json, COMPLETE. Every rank writes a share of the weights and the optimizer state
  /// that it keeps. Throws IoError on every rank when one cannot write, now or, of what is written
  /// behind, in a later advance(); nothing is left of the checkpoint then. Collective.
  void begin(const RunState& state);

  /// Weights and moments may change when this has returned. Not collective.
  void before_update();

  /// Whether this rank's thread is at work.
  bool is_busy() const;
  /// Call when no rank is_busy(). Throws as begin(). Collective.
  void advance();
  /// Waits until the checkpoint under way is complete. Throws as begin(). Collective.
  void finish();
  /// As finish(), for a run that is about to end by another error than the disk's.
  void finish_quietly() noexcept;

 private:
  enum class Phase : std::uint8_t { idle, writing, completing };
  struct Shard;

  /// `behind`: on a thread of its own.
  using Work = std::function<std::string(bool behind)>;

  /// `apart`: with copies of all that training changes.
  Shard shard_of_rank(bool apart) const;
  /// The same where there is memory for it; else `apart` becomes false.
  Shard shard_put_aside(bool& apart) const;
  std::string write_shard_files(const std::filesystem::path& path, const Shard& shard,
                                bool behind) const;
  std::string complete(const std::vector<std::string>& shards, bool behind);
  /// Without `behind`, or when there is no thread to be had, the work is done before this returns.
  void start(Work work, bool behind);
  void next_phase();
  void point(std::string_view name) const {
    if (options_.at_point) options_.at_point(name);
  }

  const OcrModel& model_;
  const ParameterStore& saved_;
  const ParallelAdamW& optimizer_;
  const Mesh& mesh_;
  CheckpointSaverOptions options_;
  RunState state_;  // of the checkpoint
  Phase phase_ = Phase::idle;
  double seconds_ = 0;  // that training has waited for it
  std::shared_ptr<TensorCopies> copies_;
  std::optional<CheckpointWriter> writer_;  // on rank 0
  std::future<std::string> work_;           // last: it goes first, and waits for its thread
};

}  // namespace lectern
