// The sequences that are decoded together. One that has ended frees its place, and a new one may
// take it while the others go on (continuous batching).
#pragma once

#include "nn/generation/generation.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace lectern {

struct EndedSequence {
  std::size_t number = 0;            ///< as join() was told
  std::vector<std::int32_t> tokens;  ///< without prompt and eos
};

class RunningBatch {
 public:
  /// Keeps references. Keys and values are kept in bf16 when the model's matrices are.
  RunningBatch(const OcrModel& model, const GenerationArgs& args);

  /// Sequences that have not ended.
  std::int64_t size() const { return running_; }
  /// Runs n prompts of equal length, ids i32 [n, P] and their rows [n, P, C], through the decoder
  /// beside the others, makes their first tokens, and puts those that go on into free places.
  void join(const Tensor& ids, const Tensor& rows, const std::vector<std::size_t>& numbers);
  /// One more token of each; places that nobody took are given up first. There must be one at
  /// least.
  void step();
  bool has_ended() const { return !ended_.empty(); }
  /// Those that have ended since the last call.
  std::vector<EndedSequence> take_ended();

  /// Tokens made by step(), eos included, and its calls.
  std::int64_t decoded_tokens() const { return decoded_tokens_; }
  std::int64_t steps() const { return steps_; }
  const DecodingCache& cache() const { return cache_; }

 private:
  struct Sequence {
    std::size_t number = 0;
    std::size_t prompt = 0;
    std::vector<std::int32_t> tokens;  ///< with the prompt
  };

  DecodingCache empty_cache(std::int64_t sequences, std::int64_t capacity) const;
  /// Appends the best token; true when the sequence goes on.
  bool append(Sequence& sequence, const float* logits, std::int64_t vocabulary);
  void give_up_free_places();

  const OcrModel& model_;
  const GenerationArgs& args_;
  ForwardContext context_;
  DecodingCache cache_;
  std::vector<std::optional<Sequence>> places_;  ///< in the order of the cache's rows
  std::vector<EndedSequence> ended_;
  std::int64_t running_ = 0, decoded_tokens_ = 0, steps_ = 0;
};

}  // namespace lectern
