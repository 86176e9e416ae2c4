#include "nn/ocr2/generation.h"

#include "autograd/ops/layout.h"

#include <algorithm>
#include <chrono>
#include <utility>

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

/// Pictures encoded at once: about as many pixels as one large view has, which is enough to keep
/// the processor busy and bounds the memory.
std::int64_t pictures_at_once(const Tensor& pixels) {
  constexpr std::int64_t kPixels = 1 << 20;
  return std::max<std::int64_t>(1,
                                kPixels / std::max<std::int64_t>(1, pixels.dim(2) * pixels.dim(3)));
}

/// Ocr2Model::encode() in groups of pictures.
VisualFeatures encode_in_groups(const Ocr2Model& model, const Ocr2Input& input,
                                ForwardContext& context) {
  const auto in_groups = [&](const Tensor& pixels, Tensor Ocr2Input::*field,
                             Variable VisualFeatures::*rows) -> Variable {
    if (!pixels.defined()) return {};
    std::vector<Variable> parts;
    const std::int64_t count = pixels.dim(0), group = pictures_at_once(pixels);
    for (std::int64_t at = 0; at < count; at += group) {
      Ocr2Input part;
      part.*field = pixels.slice(0, at, std::min(count, at + group));
      parts.push_back(model.encode(part, context).*rows);
    }
    return parts.size() == 1 ? parts[0] : concat(parts, 0);
  };
  VisualFeatures out;
  out.global = in_groups(input.pixel_values, &Ocr2Input::pixel_values, &VisualFeatures::global);
  out.local =
      in_groups(input.pixel_values_local, &Ocr2Input::pixel_values_local, &VisualFeatures::local);
  return out;
}

/// Seconds since the last call.
class Stopwatch {
 public:
  double lap() {
    const auto before = std::exchange(last_, std::chrono::steady_clock::now());
    return std::chrono::duration<double>(last_ - before).count();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

/// The sequences of a batch while they grow. `active` are those that have not ended, in the order
/// of the cache's rows.
class Batch {
 public:
  Batch(const Ocr2Input& prompt, const GenerationArgs& args)
      : args_(args), prompt_length_(prompt.input_ids.dim(1)) {
    // The guard looks at prompt and output alike, as the reference's processor does.
    for (std::int64_t b = 0; b < prompt.input_ids.dim(0); ++b) {
      const std::int32_t* row = prompt.input_ids.data<std::int32_t>() + b * prompt_length_;
      tokens_.emplace_back(row, row + prompt_length_);
      active_.push_back(static_cast<std::size_t>(b));
    }
  }

  /// Appends the best token of each active sequence. Returns the places (rows of `computed`) of
  /// those that go on.
  std::vector<std::int64_t> append(const Tensor& computed) {
    const Tensor logits = computed.to(Device{});
    const std::int64_t vocabulary = logits.dim(1);
    std::vector<std::int64_t> places;
    std::vector<std::size_t> still_active;
    for (std::size_t i = 0; i < active_.size(); ++i) {
      auto& sequence = tokens_[active_[i]];
      const auto row = static_cast<std::int64_t>(i);
      const std::int32_t token = pick(logits.data<float>() + row * vocabulary, vocabulary,
                                      banned_tokens(args_.guard, sequence));
      if (args_.eos && token == *args_.eos) continue;
      sequence.push_back(token);
      places.push_back(row);
      still_active.push_back(active_[i]);
    }
    active_ = std::move(still_active);
    return places;
  }

  /// The newest token of each active sequence, [A, 1].
  Tensor newest() const {
    Tensor out = Tensor::empty({static_cast<std::int64_t>(active_.size()), 1}, DType::i32);
    for (std::size_t i = 0; i < active_.size(); ++i)
      out.data<std::int32_t>()[i] = tokens_[active_[i]].back();
    return out;
  }

  std::vector<std::vector<std::int32_t>> without_prompt() && {
    for (auto& sequence : tokens_)
      sequence.erase(sequence.begin(), sequence.begin() + prompt_length_);
    return std::move(tokens_);
  }

 private:
  const GenerationArgs& args_;
  std::int64_t prompt_length_;
  std::vector<std::vector<std::int32_t>> tokens_;
  std::vector<std::size_t> active_;
};

}  // namespace

std::vector<std::int32_t> banned_tokens(const RepetitionGuard& guard,
                                        std::span<const std::int32_t> tokens) {
  const std::int64_t n = guard.ngram, length = static_cast<std::int64_t>(tokens.size());
  std::vector<std::int32_t> banned;
  if (n <= 1 || length < n) return banned;
  const auto tail = tokens.last(static_cast<std::size_t>(n - 1));
  for (std::int64_t at = std::max<std::int64_t>(0, length - guard.window); at + n <= length; ++at) {
    if (!std::equal(tail.begin(), tail.end(), tokens.begin() + at)) continue;
    const std::int32_t last = tokens[static_cast<std::size_t>(at + n - 1)];
    if (std::find(guard.whitelist.begin(), guard.whitelist.end(), last) == guard.whitelist.end())
      banned.push_back(last);
  }
  return banned;
}

std::vector<std::vector<std::int32_t>> generate(const Ocr2Model& model, const Ocr2Input& prompt,
                                                const GenerationArgs& args,
                                                const VisualFeatures* features,
                                                const std::function<void(std::int64_t)>& on_tokens,
                                                GenerationStatistics* statistics) {
  const NoGrad off;
  ForwardContext context;
  GenerationStatistics done;
  Stopwatch watch;
  const std::int64_t batch = prompt.input_ids.dim(0), length = prompt.input_ids.dim(1);
  const VisualFeatures visual =
      features == nullptr ? encode_in_groups(model, prompt, context) : *features;
  done.encode = watch.lap();
  const DType stored = model.store().dtype() == DType::bf16 ? DType::bf16 : DType::f32;
  DecodingCache cache(model.config().text, batch, length + args.max_new_tokens, stored,
                      model.store().device());
  Batch sequences(prompt, args);
  Tensor logits = model.step(model.embed(prompt, visual).value(), cache, context);
  done.prompt_tokens = batch * length;
  for (std::int64_t made = 1; made <= args.max_new_tokens; ++made) {
    const std::vector<std::int64_t> places = sequences.append(logits);
    if (made == 1) done.prefill = watch.lap();
    if (on_tokens) on_tokens(made);
    if (places.empty() || made == args.max_new_tokens) break;
    if (static_cast<std::int64_t>(places.size()) < cache.batch()) cache.keep(places);
    logits = model.step(model.embed_tokens(sequences.newest()), cache, context);
    done.decoded_tokens += cache.batch();
  }
  done.decode = watch.lap();
  if (statistics != nullptr) *statistics = done;
  return std::move(sequences).without_prompt();
}

void GenerationStatistics::add(const GenerationStatistics& other) {
  encode += other.encode;
  prefill += other.prefill;
  decode += other.decode;
  prompt_tokens += other.prompt_tokens;
  decoded_tokens += other.decoded_tokens;
}

double GenerationStatistics::tokens_per_second() const {
  return decode > 0 ? static_cast<double>(decoded_tokens) / decode : 0.0;
}

}  // namespace lectern
