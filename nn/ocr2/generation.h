// Greedy decoding with a cache of keys and values.
#pragma once

#include "nn/ocr2/model.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace lectern {

/// Forbids the token that would repeat an n-gram of the recent output, as the official scripts'
/// NoRepeatNGramLogitsProcessor: among the last `window` tokens, every n-gram whose first n - 1
/// tokens equal the last n - 1 bans its last token.
struct RepetitionGuard {
  std::int64_t ngram = 0;               ///< 0: off. The official scripts use 20 to 40.
  std::int64_t window = 90;             ///< tokens looked back
  std::vector<std::int32_t> whitelist;  ///< never banned (<td>, </td>)
};

struct GenerationArgs {
  std::int64_t max_new_tokens = 256;
  std::optional<std::int32_t> eos;  ///< ends a sequence; absent: always max_new_tokens
  RepetitionGuard guard;
};

/// Continuation of each sequence of a batch, without the prompt and without eos. All prompts of a
/// batch have the same length: input_ids [B, P] and the pixels or features of their images.
/// `on_tokens` is called after each step with the number of tokens made so far.
std::vector<std::vector<std::int32_t>> generate(
    const Ocr2Model& model, const Ocr2Input& prompt, const GenerationArgs& args,
    const VisualFeatures* features = nullptr,
    const std::function<void(std::int64_t)>& on_tokens = {});

/// The tokens that `guard` forbids after `tokens`.
std::vector<std::int32_t> banned_tokens(const RepetitionGuard& guard,
                                        std::span<const std::int32_t> tokens);

}  // namespace lectern
