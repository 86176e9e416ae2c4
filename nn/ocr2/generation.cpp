#include "nn/ocr2/generation.h"

#include <algorithm>
#include <limits>

namespace lectern {
namespace {

/// Highest logit that is not banned; the lowest id among equals, as argmax in the reference.
std::int32_t pick(const float* logits, std::int64_t vocabulary,
                  const std::vector<std::int32_t>& banned) {
  std::int64_t best = -1;
  for (std::int64_t i = 0; i < vocabulary; ++i) {
    if (best >= 0 && !(logits[i] > logits[best])) continue;
    if (std::find(banned.begin(), banned.end(), static_cast<std::int32_t>(i)) != banned.end())
      continue;
    best = i;
  }
  return static_cast<std::int32_t>(std::max<std::int64_t>(best, 0));
}

}  // namespace

std::vector<std::int32_t> banned_tokens(const RepetitionGuard& guard,
                                        std::span<const std::int32_t> tokens) {
  const std::int64_t n = guard.ngram, length = static_cast<std::int64_t>(tokens.size());
  std::vector<std::int32_t> banned;
  if (n <= 0 || length < n) return banned;
  const auto tail = tokens.last(static_cast<std::size_t>(n - 1));
  for (std::int64_t at = std::max<std::int64_t>(0, length - guard.window); at + n <= length; ++at) {
    if (!std::equal(tail.begin(), tail.end(), tokens.begin() + at)) continue;
    const std::int32_t last = tokens[static_cast<std::size_t>(at + n - 1)];
    if (std::find(guard.whitelist.begin(), guard.whitelist.end(), last) == guard.whitelist.end())
      banned.push_back(last);
  }
  return banned;
}

std::vector<std::vector<std::int32_t>> generate(
    const Ocr2Model& model, const Ocr2Input& prompt, const GenerationArgs& args,
    const VisualFeatures* features, const std::function<void(std::int64_t)>& on_tokens) {
  const NoGrad off;
  ForwardContext context;
  const std::int64_t batch = prompt.input_ids.dim(0), length = prompt.input_ids.dim(1);
  const std::int64_t vocabulary = model.config().text.vocab_size;
  const VisualFeatures visual = features == nullptr ? model.encode(prompt, context) : *features;
  DecodingCache cache(model.config().text, batch, length + args.max_new_tokens);

  // The guard looks at prompt and output alike, as the reference's processor does.
  std::vector<std::vector<std::int32_t>> tokens;
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int32_t* row = prompt.input_ids.data<std::int32_t>() + b * length;
    tokens.emplace_back(row, row + length);
  }
  std::vector<bool> finished(static_cast<std::size_t>(batch), false);
  Tensor logits = model.step(model.embed(prompt, visual).value(), cache, context);
  for (std::int64_t made = 0; made < args.max_new_tokens; ++made) {
    Tensor next = Tensor::empty({batch, 1}, DType::i32);
    for (std::int64_t b = 0; b < batch; ++b) {
      auto& sequence = tokens[static_cast<std::size_t>(b)];
      const std::int32_t token = pick(logits.data<float>() + b * vocabulary, vocabulary,
                                      banned_tokens(args.guard, sequence));
      next.data<std::int32_t>()[b] = token;
      if (args.eos && token == *args.eos) finished[static_cast<std::size_t>(b)] = true;
      if (!finished[static_cast<std::size_t>(b)]) sequence.push_back(token);
    }
    if (on_tokens) on_tokens(made + 1);
    if (std::all_of(finished.begin(), finished.end(), [](bool done) { return done; })) break;
    if (made + 1 < args.max_new_tokens)
      logits = model.step(model.embed_tokens(next), cache, context);
  }
  for (auto& sequence : tokens) sequence.erase(sequence.begin(), sequence.begin() + length);
  return tokens;
}

}  // namespace lectern
