#include "nn/generation/generation.h"

#include "autograd/ops/layout.h"
#include "core/ops/layout.h"
#include "core/stopwatch.h"
#include "nn/generation/running_batch.h"

#include <algorithm>
#include <deque>
#include <map>
#include <numeric>
#include <utility>

namespace lectern {
namespace {

/// Pixels encoded at once: about as many as one large view has, which is enough to keep the
/// processor busy and bounds the memory.
constexpr std::int64_t kPixelsAtOnce = 1 << 20;

std::int64_t pictures_at_once(const Tensor& pixels) {
  return std::max<std::int64_t>(
      1, kPixelsAtOnce / std::max<std::int64_t>(1, pixels.dim(2) * pixels.dim(3)));
}

/// OcrModel::encode() in groups of pictures.
MediaRows encode_in_groups(const OcrModel& model, const ModelInput& input,
                           ForwardContext& context) {
  const auto in_groups = [&](const Tensor& pixels, Tensor ModelInput::*field,
                             Variable MediaRows::*rows) -> Variable {
    if (!pixels.defined()) return {};
    std::vector<Variable> parts;
    const std::int64_t count = pixels.dim(0), group = pictures_at_once(pixels);
    for (std::int64_t at = 0; at < count; at += group) {
      ModelInput part;
      part.*field = pixels.slice(0, at, std::min(count, at + group));
      parts.push_back(model.encode(part, context).*rows);
    }
    return parts.size() == 1 ? parts[0] : concat(parts, 0);
  };
  MediaRows out;
  out.global = in_groups(input.pixel_values, &ModelInput::pixel_values, &MediaRows::global);
  out.local =
      in_groups(input.pixel_values_local, &ModelInput::pixel_values_local, &MediaRows::local);
  return out;
}

/// A prompt whose picture has been encoded.
struct Waiting {
  std::size_t number = 0;
  Tensor ids;              ///< i32 [1, P]
  Tensor rows;             ///< [1, P, C]
  std::int64_t slots = 1;  ///< that it takes
};

/// The prompts of a source, their pictures encoded some at a time. Which are encoded together
/// depends on their order and sizes alone.
class WaitingPrompts {
 public:
  WaitingPrompts(const OcrModel& model, const PromptSource& next, ForwardContext& context)
      : model_(model), next_(next), context_(context) {}

  /// The first in line; null when the source has no more.
  const Waiting* front(GenerationStatistics& done) {
    if (line_.empty()) fetch(done);
    return line_.empty() ? nullptr : &line_.front();
  }
  Waiting take() {
    Waiting out = std::move(line_.front());
    line_.pop_front();
    return out;
  }

 private:
  /// As many prompts as have the pixels that are encoded at once.
  void fetch(GenerationStatistics& done) {
    std::vector<ModelInput> group;
    std::int64_t pixels = 0;
    while (!is_over_ && pixels < kPixelsAtOnce) {
      std::optional<ModelInput> prompt = next_();
      is_over_ = !prompt;
      if (!prompt) break;
      check_prompt(*prompt);
      for (const Tensor& views : {prompt->pixel_values, prompt->pixel_values_local})
        if (views.defined()) pixels += views.dim(0) * views.dim(2) * views.dim(3);
      pixels += prompt->input_ids.numel();  // a source of prompts without pictures ends, too
      group.push_back(std::move(*prompt));
    }
    if (group.empty()) return;
    Stopwatch watch;
    encode(group);
    done.encode += watch.lap();
  }

  static void check_prompt(const ModelInput& prompt) {
    check_ndim(prompt.input_ids, 2, "generate", "input_ids [1, P]");
    if (prompt.input_ids.dim(0) != 1 || prompt.num_local_patches.size() > 1)
      fail<ShapeError>(fmt::format(
          "generate: a prompt of a source must be one sequence with at most one picture, got {} "
          "with {} pictures",
          prompt.input_ids.describe(), prompt.num_local_patches.size()));
  }

  void encode(const std::vector<ModelInput>& group) {
    std::vector<Variable> globals, locals;
    const auto pixels_of = [&](Tensor ModelInput::*field) {
      std::vector<Tensor> views;
      for (const ModelInput& prompt : group)
        if ((prompt.*field).defined()) views.push_back(prompt.*field);
      return views.empty() ? Tensor() : views.size() == 1 ? views[0] : concat(views, 0);
    };
    ModelInput all;
    all.pixel_values = pixels_of(&ModelInput::pixel_values);
    all.pixel_values_local = pixels_of(&ModelInput::pixel_values_local);
    const MediaRows features = encode_in_groups(model_, all, context_);
    std::int64_t image = 0, tile = 0;
    for (const ModelInput& prompt : group) {
      MediaRows own;
      std::int64_t tiles = 0;
      if (prompt.pixel_values.defined()) {
        own.global = Variable(features.global.value().slice(0, image, image + 1).contiguous());
        ++image;
      }
      if (prompt.pixel_values_local.defined()) {
        tiles = prompt.pixel_values_local.dim(0);
        own.local = Variable(features.local.value().slice(0, tile, tile + tiles).contiguous());
        tile += tiles;
      }
      line_.push_back({fetched_++, prompt.input_ids, model_.embed(prompt, own).value(), 1 + tiles});
    }
  }

  const OcrModel& model_;
  const PromptSource& next_;
  ForwardContext& context_;
  std::deque<Waiting> line_;
  std::size_t fetched_ = 0;
  bool is_over_ = false;
};

/// Gives free slots to those in line, prompts of one length together.
void fill_slots(WaitingPrompts& waiting, std::int64_t slots, RunningBatch& batch,
                std::map<std::size_t, std::int64_t>& taken, GenerationStatistics& done) {
  std::int64_t used = 0;
  for (const auto& [number, count] : taken) used += count;
  for (;;) {
    std::vector<Tensor> ids, rows;
    std::vector<std::size_t> numbers;
    for (;;) {
      const Waiting* first = waiting.front(done);
      // One that is larger than all slots together runs alone.
      if (first == nullptr || (used > 0 && used + first->slots > slots)) break;
      if (!ids.empty() && ids[0].dim(1) != first->ids.dim(1)) break;
      Waiting next = waiting.take();
      used += next.slots;
      taken[next.number] = next.slots;
      ids.push_back(next.ids);
      rows.push_back(next.rows);
      numbers.push_back(next.number);
    }
    if (ids.empty()) return;
    Stopwatch watch;
    batch.join(ids.size() == 1 ? ids[0] : concat(ids, 0),
               rows.size() == 1 ? rows[0] : concat(rows, 0), numbers);
    done.prompt_tokens += static_cast<std::int64_t>(ids.size()) * ids[0].dim(1);
    done.prefill += watch.lap();
  }
}

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

std::vector<std::vector<std::int32_t>> generate(const OcrModel& model, const ModelInput& prompt,
                                                const GenerationArgs& args,
                                                const MediaRows* features,
                                                const std::function<void(std::int64_t)>& on_tokens,
                                                GenerationStatistics* statistics) {
  const NoGrad off;
  ForwardContext context;
  GenerationStatistics done;
  Stopwatch watch;
  const std::int64_t count = prompt.input_ids.dim(0);
  const MediaRows visual =
      features == nullptr ? encode_in_groups(model, prompt, context) : *features;
  done.encode = watch.lap();
  RunningBatch batch(model, args);
  std::vector<std::size_t> numbers(static_cast<std::size_t>(count));
  std::iota(numbers.begin(), numbers.end(), std::size_t{0});
  batch.join(prompt.input_ids, model.embed(prompt, visual).value(), numbers);
  done.prompt_tokens = prompt.input_ids.numel();
  done.prefill = watch.lap();
  if (on_tokens) on_tokens(1);
  while (batch.size() > 0) {
    batch.step();
    if (on_tokens) on_tokens(1 + batch.steps());
  }
  done.decode = watch.lap();
  done.decoded_tokens = batch.decoded_tokens();
  done.decode_steps = batch.steps();
  if (statistics != nullptr) *statistics = done;
  std::vector<std::vector<std::int32_t>> out(numbers.size());
  for (EndedSequence& ended : batch.take_ended()) out[ended.number] = std::move(ended.tokens);
  return out;
}

GenerationStatistics generate_stream(const OcrModel& model, const PromptSource& next,
                                     const GenerationArgs& args, std::int64_t slots,
                                     const OnEnded& on_ended) {
  if (slots < 1)
    fail<ConfigError>(fmt::format("generate: slots must be at least 1, got {}", slots));
  const NoGrad off;
  ForwardContext context;
  GenerationStatistics done;
  RunningBatch batch(model, args);
  WaitingPrompts waiting(model, next, context);
  std::map<std::size_t, std::int64_t> taken;  // slots, by number
  for (;;) {
    const bool is_stopped = args.stop && args.stop();
    // Those that end with their first token make room at once.
    do {
      for (EndedSequence& ended : batch.take_ended()) {
        taken.erase(ended.number);
        on_ended(ended.number, std::move(ended.tokens));
      }
      if (!is_stopped) fill_slots(waiting, slots, batch, taken, done);
    } while (batch.has_ended());
    if (is_stopped || batch.size() == 0) break;
    Stopwatch watch;
    batch.step();
    done.decode += watch.lap();
  }
  done.decoded_tokens = batch.decoded_tokens();
  done.decode_steps = batch.steps();
  return done;
}

void GenerationStatistics::add(const GenerationStatistics& other) {
  encode += other.encode;
  prefill += other.prefill;
  decode += other.decode;
  prompt_tokens += other.prompt_tokens;
  decoded_tokens += other.decoded_tokens;
  decode_steps += other.decode_steps;
}

double GenerationStatistics::tokens_per_second() const {
  return decode > 0 ? static_cast<double>(decoded_tokens) / decode : 0.0;
}

}  // namespace lectern
