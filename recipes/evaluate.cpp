#include "recipes/evaluate.h"

#include "autograd/variable.h"
#include "data/batch.h"
#include "data/sampler.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <span>
#include <utility>

namespace lectern {

namespace {

/// Samples that go through the model together; more would only take memory.
constexpr std::size_t kLossBatch = 16;

/// Sum of the losses of the samples' answers and the number of their tokens.
std::pair<double, std::int64_t> loss_of(const Ocr2Model& model, const SampleSet& set,
                                        std::span<const Sample> samples) {
  const NoGrad off;
  BatchOptions options;
  options.pad_token = static_cast<std::int32_t>(model.config().text.pad_token_id);
  const Batch batch = make_batch(samples, set.options(), options);
  Ocr2Input input;
  input.input_ids = batch.input_ids;
  input.labels = batch.labels;
  input.positions = batch.positions;
  input.segment_start = batch.segment_start;
  input.pixel_values = batch.pixel_values;
  input.pixel_values_local = batch.pixel_values_local;
  input.num_local_patches.assign(batch.num_local_patches.begin(), batch.num_local_patches.end());
  ForwardContext context;
  const Ocr2Loss loss = model.loss(input, context);
  return {loss.loss_sum.value().item(), loss.count};
}

}  // namespace

EvaluationResult evaluate(const Ocr2Model& model, const Tokenizer& tokenizer,
                          const SampleSet& samples, const EvaluationArgs& args,
                          const std::function<void(std::int64_t)>& progress) {
  const auto start = std::chrono::steady_clock::now();
  const Sampler sampler(samples.sampler_sources(), args.seed);
  std::int64_t units = 0;
  for (const SamplerSource& source : sampler.sources()) units += source.units;

  EvaluationResult result;
  std::vector<ImageViews> pictures;
  std::vector<Sample> batch;
  const auto add_loss = [&] {
    if (batch.empty()) return;
    const auto [sum, count] = loss_of(model, samples, batch);
    result.loss_sum += sum;
    result.trained_tokens += count;
    batch.clear();
  };
  std::set<std::string> seen;  // a small source may come round again before a large one is through
  const std::int64_t wanted = std::min(args.samples, units);
  for (std::uint64_t position = 0; static_cast<std::int64_t>(seen.size()) < wanted; ++position) {
    if (position > 64 * static_cast<std::uint64_t>(units)) break;
    const Draw draw = sampler.at(position);
    if (!seen.insert(samples.key(draw)).second) continue;
    if (static_cast<int>((seen.size() - 1) % static_cast<std::size_t>(args.ranks)) != args.rank)
      continue;
    Sample sample = samples.make(draw);
    result.samples.push_back({sample.key, sample.text, "", sample.global});
    if (args.with_loss) batch.push_back(sample);
    if (batch.size() == kLossBatch) add_loss();
    pictures.push_back(
        {std::move(sample.global), std::move(sample.local), {sample.columns, sample.rows}});
  }
  add_loss();
  if (result.trained_tokens > 0)
    result.loss = result.loss_sum / static_cast<double>(result.trained_tokens);
  Reader reader(model, tokenizer, args.reader);
  const std::vector<std::string> texts = reader.read_views(pictures, progress);
  result.tokens_per_second = reader.statistics().tokens_per_second();
  std::vector<PageScore> scores;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    ReadSample& sample = result.samples[i];
    sample.read = texts[i];
    scores.push_back(score_page(sample.read, sample.truth));
    scores.back().name = sample.name;
  }
  result.scores = summarize(std::move(scores));
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace lectern
