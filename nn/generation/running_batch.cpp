#include "nn/generation/running_batch.h"

#include <algorithm>
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

}  // namespace

RunningBatch::RunningBatch(const OcrModel& model, const GenerationArgs& args)
    : model_(model), args_(args), cache_(empty_cache(0, 0)) {}

DecodingCache RunningBatch::empty_cache(std::int64_t sequences, std::int64_t capacity) const {
  const DType stored = model_.store().dtype() == DType::bf16 ? DType::bf16 : DType::f32;
  return DecodingCache(model_.decoder().config(), sequences, capacity, stored,
                       model_.store().device());
}

bool RunningBatch::append(Sequence& sequence, const float* logits, std::int64_t vocabulary) {
  // The guard looks at prompt and output alike, as the reference's processor does.
  const std::int32_t token = pick(logits, vocabulary, banned_tokens(args_.guard, sequence.tokens));
  const bool is_end = args_.eos && token == *args_.eos;
  if (!is_end) sequence.tokens.push_back(token);
  const auto made = static_cast<std::int64_t>(sequence.tokens.size() - sequence.prompt);
  if (!is_end && made < args_.max_new_tokens) return true;
  auto& tokens = sequence.tokens;
  tokens.erase(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(sequence.prompt));
  ended_.push_back({sequence.number, std::move(tokens)});
  return false;
}

void RunningBatch::join(const Tensor& ids, const Tensor& rows,
                        const std::vector<std::size_t>& numbers) {
  const std::int64_t count = ids.dim(0), length = ids.dim(1);
  if (args_.max_new_tokens < 1) {
    for (const std::size_t number : numbers) ended_.push_back({number, {}});
    return;
  }
  DecodingCache fresh = empty_cache(count, length + args_.max_new_tokens);
  const Tensor logits = model_.decoder().step(rows, fresh, context_).to(Device{});
  const std::int64_t vocabulary = logits.dim(1);
  std::vector<std::int64_t> from, to;
  std::size_t place = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int32_t* prompt = ids.data<std::int32_t>() + i * length;
    Sequence sequence{numbers[static_cast<std::size_t>(i)],
                      static_cast<std::size_t>(length),
                      {prompt, prompt + length}};
    if (!append(sequence, logits.data<float>() + i * vocabulary, vocabulary)) continue;
    while (place < places_.size() && places_[place]) ++place;
    if (place == places_.size()) places_.emplace_back();
    places_[place] = std::move(sequence);
    from.push_back(i);
    to.push_back(static_cast<std::int64_t>(place));
    ++running_;
  }
  const bool all_and_alone = running_ == count && cache_.batch() == 0;
  if (all_and_alone)
    cache_ = std::move(fresh);
  else
    cache_.take(fresh, from, to);
}

void RunningBatch::give_up_free_places() {
  if (running_ == static_cast<std::int64_t>(places_.size())) return;
  std::vector<std::int64_t> kept;
  std::vector<std::optional<Sequence>> places;
  for (std::size_t i = 0; i < places_.size(); ++i) {
    if (!places_[i]) continue;
    kept.push_back(static_cast<std::int64_t>(i));
    places.push_back(std::move(places_[i]));
  }
  cache_.keep(kept);
  places_ = std::move(places);
}

void RunningBatch::step() {
  give_up_free_places();
  Tensor newest = Tensor::empty({running_, 1}, DType::i32);
  for (std::size_t i = 0; i < places_.size(); ++i)
    newest.data<std::int32_t>()[i] = places_[i]->tokens.back();
  const Tensor logits =
      model_.decoder().step(model_.decoder().embed_tokens(newest), cache_, context_).to(Device{});
  ++steps_;
  decoded_tokens_ += running_;
  const std::int64_t vocabulary = logits.dim(1);
  for (std::size_t i = 0; i < places_.size(); ++i) {
    const float* row = logits.data<float>() + static_cast<std::int64_t>(i) * vocabulary;
    if (append(*places_[i], row, vocabulary)) continue;
    places_[i].reset();
    --running_;
  }
}

std::vector<EndedSequence> RunningBatch::take_ended() { return std::exchange(ended_, {}); }

}  // namespace lectern
