// Batches of a training run, made in the background and given out in order.
//
// A step takes `global_batch` rows, the next ones in the sampler's order (in packs: greedily, as
// many samples as fit into each row), in batches of `micro_batch` rows. Each of R ranks works on as
// many batches, so spread that the work of all ranks is even: the batches with most work first,
// each to the rank that has least so far. What a step holds depends neither on the ranks nor on the
// workers: every rank plans the whole step from the samples' lengths and loads only its own part.
#pragma once

#include "data/samples/batch.h"
#include "data/samples/sample.h"
#include "data/samples/sampler.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace lectern {

struct LoaderOptions {
  std::uint64_t seed = 0;
  bool shuffle = true;
  /// Position of the run at which the sampler's order begins: where a curriculum's level began.
  std::uint64_t first_position = 0;
  std::int64_t global_batch = 1;  // rows a step over all ranks; a multiple of `ranks`
  std::int64_t micro_batch = 0;   // rows a batch; 0: all rows of the rank; packs: always 1
  BatchOptions batch;
  int rank = 0, ranks = 1;
  /// Work of an image token, in tokens of text, to spread batches evenly over ranks: what its
  /// encoder takes, 0 where the encoder's output is at hand.
  std::int64_t image_token_work = 4;
  int workers = 1;  // threads; 0: next() does the work itself
  int ahead = 4;    // batches made before they are asked for
  /// True when the encoder's output for a key is at hand, so that the pixels may be left out.
  /// Called from the workers; what it says must hold until the batch has been used.
  std::function<bool(const std::string& key)> is_cached;
};

/// Where a run stands: all that a checkpoint needs to keep.
struct LoaderState {
  std::uint64_t samples = 0;  // consumed by all ranks together
  std::uint64_t step = 0;     // finished
  bool operator==(const LoaderState&) const = default;
};

struct LoadedBatch : Batch {
  std::uint64_t step = 0;                           // from 0
  int view = 0;                                     // which of SampleOptions::views
  std::int64_t micro_batch = 0, micro_batches = 1;  // place in the rank's part of the step
  /// Trained tokens of the step on all ranks: what its loss is divided by.
  std::int64_t step_trained_tokens = 0;
  std::int64_t step_samples = 0;
  /// Work of the busiest rank in this step over the mean, as planned; 1 with one rank.
  double step_work_spread = 1;
};

class Loader {
 public:
  /// Throws ConfigError on bad options, when `start` lies before first_position and when a sample
  /// would not fit into a pack.
  Loader(std::shared_ptr<const SampleSet> samples, LoaderOptions options, LoaderState start = {});
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// The next batch; waits for it. Throws what making it threw, and then again when called again.
  LoadedBatch next();
  /// After the last step of which next() gave out every batch.
  LoaderState state() const;
  /// Batches of a step on this rank.
  std::int64_t micro_batches() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lectern
