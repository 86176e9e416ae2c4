#include "recipes/evaluate.h"

#include "data/sampler.h"

#include <algorithm>
#include <chrono>
#include <set>

namespace lectern {

EvaluationResult evaluate(const Ocr2Model& model, const Tokenizer& tokenizer,
                          const SampleSet& samples, const EvaluationArgs& args,
                          const std::function<void(std::int64_t)>& progress) {
  const auto start = std::chrono::steady_clock::now();
  const Sampler sampler(samples.sampler_sources(), args.seed);
  std::int64_t units = 0;
  for (const SamplerSource& source : sampler.sources()) units += source.units;

  EvaluationResult result;
  std::vector<ImageViews> pictures;
  std::set<std::string> seen;  // a small source may come round again before a large one is through
  const std::int64_t wanted = std::min(args.samples, units);
  for (std::uint64_t position = 0; static_cast<std::int64_t>(seen.size()) < wanted; ++position) {
    if (position > 64 * static_cast<std::uint64_t>(units)) break;
    Sample sample = samples.make(sampler.at(position));
    if (!seen.insert(sample.key).second) continue;
    result.samples.push_back({sample.key, sample.text, "", sample.global});
    pictures.push_back(
        {std::move(sample.global), std::move(sample.local), {sample.columns, sample.rows}});
  }
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
