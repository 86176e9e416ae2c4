#include "recipes/evaluate/evaluate.h"

#include "autograd/variable.h"
#include "core/error.h"
#include "core/stopwatch.h"
#include "data/samples/batch.h"
#include "data/samples/sampler.h"
#include "recipes/read/page_reader.h"

#include <algorithm>
#include <map>
#include <set>
#include <span>
#include <utility>

namespace lectern {

namespace {

/// Samples that go through the model together; more would only take memory.
constexpr std::size_t kLossBatch = 16;

/// Sum of the losses of the samples' answers and the number of their tokens.
std::pair<double, std::int64_t> loss_of(const OcrModel& model, const SampleSet& set,
                                        std::span<const Sample> samples) {
  const NoGrad off;
  BatchOptions options;
  options.pad_token = static_cast<std::int32_t>(model.config().decoder.pad_token_id);
  const Batch batch = make_batch(samples, set.options(), options);
  ModelInput input;
  input.input_ids = batch.input_ids;
  input.labels = batch.labels;
  input.positions = batch.positions;
  input.segment_start = batch.segment_start;
  input.pixel_values = batch.pixel_values;
  input.pixel_values_local = batch.pixel_values_local;
  input.num_local_patches.assign(batch.num_local_patches.begin(), batch.num_local_patches.end());
  ForwardContext context;
  const ModelLoss loss = model.loss(input, context);
  return {loss.loss_sum.value().item(), loss.count};
}

/// Draws of different samples, at most `wanted` (all when there are fewer).
std::vector<Draw> choose_draws(const SampleSet& samples, std::uint64_t seed, std::int64_t wanted) {
  const Sampler sampler(samples.sampler_sources(), seed);
  std::int64_t units = 0;
  for (const SamplerSource& source : sampler.sources()) units += source.units;
  wanted = std::min(wanted, units);
  std::set<std::string> seen;  // a small source may come round again before a large one is through
  std::vector<Draw> out;
  for (std::uint64_t position = 0; static_cast<std::int64_t>(out.size()) < wanted; ++position) {
    if (position > 64 * static_cast<std::uint64_t>(units)) break;
    const Draw draw = sampler.at(position);
    if (seen.insert(samples.key(draw)).second) out.push_back(draw);
  }
  return out;
}

/// Pages piece by piece; their pictures stay in `result`.
std::vector<std::string> read_by_pieces(const OcrModel& model, const SampleSet& samples,
                                        const std::vector<Draw>& draws, Reader& reader,
                                        EvaluationResult& result,
                                        const std::function<void(std::int64_t)>& progress) {
  ReadingSettings settings = model.config().reading;
  settings.by_pieces = true;
  std::vector<std::string> out;
  const PageSource next = [&]() -> std::optional<Image> {
    if (result.samples.size() == draws.size()) return std::nullopt;
    const Draw& draw = draws[result.samples.size()];
    const Sample sample = samples.make(draw, 0, false);
    WholePage page = samples.whole_page(draw);
    if (page.dots_per_inch > 0)
      page.picture = rescaled(std::move(page.picture), page.dots_per_inch, settings.piece_dpi);
    result.samples.push_back({sample.key, sample.document, sample.text, "", page.picture});
    return std::move(page.picture);
  };
  read_pages(reader, settings, next, [&](std::string text) {
    out.push_back(std::move(text));
    if (progress) progress(static_cast<std::int64_t>(out.size()));
  });
  return out;
}

/// Samples in the views that the model has for them.
std::vector<std::string> read_samples(const OcrModel& model, const SampleSet& samples,
                                      const std::vector<Draw>& draws, bool with_loss,
                                      Reader& reader, EvaluationResult& result,
                                      const std::function<void(std::int64_t)>& progress) {
  std::vector<ImageViews> pictures;
  std::vector<std::vector<std::int32_t>> prompts;  // stored pairs have their own
  std::vector<Sample> batch;
  for (std::size_t i = 0; i < draws.size(); ++i) {
    Sample sample = samples.make(draws[i]);
    result.samples.push_back({sample.key, sample.document, sample.text, "", sample.global});
    if (with_loss) batch.push_back(sample);
    if (batch.size() == kLossBatch || (i + 1 == draws.size() && !batch.empty())) {
      const auto [sum, count] = loss_of(model, samples, batch);
      result.loss_sum += sum;
      result.trained_tokens += count;
      batch.clear();
    }
    prompts.push_back(std::move(sample.prompt_ids));
    pictures.push_back(
        {std::move(sample.global), std::move(sample.local), {sample.columns, sample.rows}});
  }
  if (result.trained_tokens > 0)
    result.loss = result.loss_sum / static_cast<double>(result.trained_tokens);
  return reader.read_views(pictures, progress, prompts);
}

}  // namespace

std::vector<std::pair<std::string, Scores>> scores_by_document(const EvaluationResult& result) {
  std::map<std::string, std::vector<PageScore>> pages;
  for (std::size_t i = 0; i < result.samples.size(); ++i)
    pages[result.samples[i].document].push_back(result.scores.pages[i]);
  std::vector<std::pair<std::string, Scores>> out;
  for (auto& [document, scores] : pages) out.emplace_back(document, summarize(std::move(scores)));
  return out;
}

EvaluationResult evaluate(const OcrModel& model, const Tokenizer& tokenizer,
                          const SampleSet& samples, const EvaluationArgs& args,
                          const std::function<void(std::int64_t)>& progress) {
  if (args.by_pieces && args.with_loss)
    fail<ConfigError>("evaluate: with_loss must be off with by_pieces, got both");
  const Stopwatch watch;
  EvaluationResult result;
  const std::vector<Draw> all = choose_draws(samples, args.seed, args.samples);
  std::vector<Draw> draws;
  for (auto i = static_cast<std::size_t>(args.rank); i < all.size();
       i += static_cast<std::size_t>(args.ranks))
    draws.push_back(all[i]);
  Reader reader(model, tokenizer, args.reader);
  const std::vector<std::string> texts =
      args.by_pieces
          ? read_by_pieces(model, samples, draws, reader, result, progress)
          : read_samples(model, samples, draws, args.with_loss, reader, result, progress);
  result.tokens_per_second = reader.statistics().tokens_per_second();
  std::vector<PageScore> scores;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    ReadSample& sample = result.samples[i];
    sample.read = texts[i];
    scores.push_back(score_page(sample.read, sample.truth));
    scores.back().name = sample.name;
  }
  result.scores = summarize(std::move(scores));
  result.seconds = watch.seconds();
  return result;
}

}  // namespace lectern
