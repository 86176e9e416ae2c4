// Greedy decoding with a cache of keys and values.
#pragma once

#include "nn/model.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace lectern {

/// Forbids the token that would repeat an n-gram of the recent output, as the official scripts'
/// NoRepeatNGramLogitsProcessor: among the last `window` tokens, every n-gram whose first n - 1
/// tokens equal the last n - 1 bans its last token. With n = 1 the official processor bans nothing
/// (its prefix is then the whole text, which equals no n-gram's), and so does this one.
struct RepetitionGuard {
  std::int64_t ngram = 0;               ///< 0: off. The official scripts use 20 to 40.
  std::int64_t window = 90;             ///< tokens looked back
  std::vector<std::int32_t> whitelist;  ///< never banned (<td>, </td>)
};

struct GenerationArgs {
  std::int64_t max_new_tokens = 256;
  std::optional<std::int32_t> eos;  ///< ends a sequence; absent: always max_new_tokens
  RepetitionGuard guard;
  /// Asked by generate_stream() before each step: true ends it, and what has not ended is lost.
  std::function<bool()> stop = {};
};

/// What one call of generate() did, and how long each part took (seconds).
struct GenerationStatistics {
  double encode = 0;   ///< pictures to rows
  double prefill = 0;  ///< prompts through the decoder, with the first token
  double decode = 0;   ///< all other tokens
  std::int64_t prompt_tokens = 0;
  std::int64_t decoded_tokens = 0;  ///< made in `decode`, eos included
  std::int64_t decode_steps = 0;    ///< passes through the decoder in `decode`

  void add(const GenerationStatistics& other);
  /// 0 when nothing was decoded.
  double tokens_per_second() const;
};

/// Continuation of each sequence of one batch, without the prompt and without eos. All prompts of a
/// batch have the same length: input_ids [B, P] and the pixels or features of their images. A
/// sequence that has ended leaves the batch. Keys and values are kept in bf16 when the model's
/// matrices are. `on_tokens` is called after each step with the number of tokens made so far.
std::vector<std::vector<std::int32_t>> generate(
    const OcrModel& model, const ModelInput& prompt, const GenerationArgs& args,
    const MediaRows* features = nullptr, const std::function<void(std::int64_t)>& on_tokens = {},
    GenerationStatistics* statistics = nullptr);

/// The next prompt, in order: input_ids [1, P] and the pixels of its one picture or none. Nothing
/// at the end, after which it is not called again.
using PromptSource = std::function<std::optional<ModelInput>()>;
/// Called once a sequence, when it ends: its number among the prompts, and its continuation.
using OnEnded = std::function<void(std::size_t number, std::vector<std::int32_t> tokens)>;

/// Continues all prompts of a source (continuous batching). Each takes a slot, and one more for
/// each local tile of its picture; when it ends, those next in line take its slots, and run their
/// prompts, before the others make their next token. So at most `slots` sequences are in memory,
/// beside those whose pictures wait encoded (2^20 pixels of views, or one picture); one that needs
/// more slots than there are runs alone. A sequence's tokens are those that it would get alone, but
/// for two logits that are equal to rounding: with other numbers of rows kernels choose another
/// order of adding. Throws ConfigError for slots < 1, ShapeError for a prompt of several sequences;
/// what `next` throws ends the call.
GenerationStatistics generate_stream(const OcrModel& model, const PromptSource& next,
                                     const GenerationArgs& args, std::int64_t slots,
                                     const OnEnded& on_ended);

/// The tokens that `guard` forbids after `tokens`.
std::vector<std::int32_t> banned_tokens(const RepetitionGuard& guard,
                                        std::span<const std::int32_t> tokens);

}  // namespace lectern
