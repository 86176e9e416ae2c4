#include "recipes/train/training_data.h"

#include "core/error.h"
#include "core/random.h"
#include "data/samples/cut.h"
#include "data/samples/pairs.h"
#include "data/samples/records.h"
#include "recipes/read/reader.h"

#include <algorithm>
#include <utility>

namespace lectern {
namespace {

/// Shares of the levels that a recipe without data.sources draws.
std::vector<std::pair<std::string, double>> level_shares(const DataRecipe& data) {
  if (data.level != "mixed") return {{data.level, 1.0}};
  std::vector<std::pair<std::string, double>> out;
  if (data.page_share > 0) out.emplace_back("page", data.page_share);
  if (data.line_share > 0) out.emplace_back("line", data.line_share);
  if (data.word_share > 0) out.emplace_back("word", data.word_share);
  return out;
}

/// data.shards, or data.validation, in the form of data.sources; folders of pairs (`lectern data
/// pairs`) have no levels. Without weights folders count as
/// much as they have pages.
std::vector<SourceRecipe> sources_of_folders(const DataRecipe& data,
                                             const std::vector<std::string>& folders,
                                             const std::vector<double>& weights,
                                             OpenShards& shards) {
  std::vector<SourceRecipe> out;
  for (std::size_t i = 0; i < folders.size(); ++i) {
    if (shards.open(folders[i])->holds_pairs()) {
      auto pairs = std::make_shared<PairSettings>();
      pairs->folder = folders[i];
      pairs->options.prompt = data.prompt;
      pairs->options.max_response_tokens = data.max_text_tokens;
      const double weight =
          weights.empty() ? static_cast<double>(shards.open(folders[i])->pages()) : weights[i];
      out.push_back({folders[i] + " pairs", "pairs", weight, std::move(pairs)});
      continue;
    }
    for (const auto& [level, share] : level_shares(data)) {
      auto cut = std::make_shared<CutSettings>();
      cut->folder = folders[i];
      cut->options.level = level_from(level);
      cut->options.prompt = data.prompt;
      cut->options.ascii_only = data.ascii_only;
      cut->options.max_characters = data.max_characters;
      cut->options.max_response_tokens = data.max_text_tokens;
      const double weight =
          weights.empty() ? static_cast<double>(shards.open(folders[i])->pages()) : weights[i];
      out.push_back({folders[i] + " " + level, "shards", weight * share, std::move(cut)});
    }
  }
  return out;
}

SampleOptions sample_options(const Recipe& recipe, const ModelConfig& config, bool training) {
  SampleOptions out;
  ReadingSettings reading = reading_settings(recipe);
  out.views = {view_options(config, reading)};
  if (training && !recipe.view.resolutions.empty()) {
    out.views.clear();
    for (const std::int64_t size : recipe.view.resolutions) {
      reading.global_size = size;
      out.views.push_back(view_options(config, reading));
    }
  }
  out.begin_token = static_cast<std::int32_t>(config.decoder.bos_token_id);
  out.end_token = static_cast<std::int32_t>(config.decoder.eos_token_id);
  out.image_token = static_cast<std::int32_t>(config.image_token_id);
  out.margin = recipe.data.margin;
  out.text_height = recipe.data.text_height;
  out.at_top = recipe.data.text_at == "top";
  out.jitter_pixels = training ? recipe.data.jitter_pixels : 0;
  out.seed = static_cast<std::uint64_t>(recipe.seed);
  return out;
}

/// Another one for each source, so that two that are alike do not draw the same samples.
std::uint64_t seed_of(const Recipe& recipe, const std::string& list, const std::string& name) {
  Random random(static_cast<std::uint64_t>(recipe.seed), list + "/" + name);
  const std::uint64_t high = random.next();
  return high << 32 | random.next();
}

}  // namespace

struct TrainingData::State {
  const Recipe& recipe;
  const ModelConfig& config;
  const Tokenizer& tokenizer;
  OpenShards shards;
  std::vector<SourceRecipe> training_recipes, validation_recipes;
  std::vector<WeightedSource> training, validation;

  WeightedSource open(const SourceRecipe& from, const std::string& list, bool is_read) {
    const SourceContext context{tokenizer, shards, seed_of(recipe, list, from.name), is_read};
    return {from.settings->open(context), from.weight};
  }
};

TrainingData::TrainingData(const Recipe& recipe, const ModelConfig& config,
                           const Tokenizer& tokenizer)
    : state_(new State{recipe, config, tokenizer, {}, {}, {}, {}, {}}) {
  const DataRecipe& data = recipe.data;
  State& s = *state_;
  s.training_recipes = data.sources.empty()
                           ? sources_of_folders(data, data.shards, data.shard_weights, s.shards)
                           : data.sources;
  s.validation_recipes = data.validation_sources;
  if (!data.validation.empty())
    s.validation_recipes = sources_of_folders(data, {data.validation}, {}, s.shards);
  for (const SourceRecipe& source : s.training_recipes)
    s.training.push_back(s.open(source, "source", false));
  for (const SourceRecipe& source : s.validation_recipes)
    s.validation.push_back(s.open(source, "validation source", true));
}

TrainingData::~TrainingData() = default;

std::int64_t TrainingData::levels() const {
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(state_->recipe.curriculum.size()));
}

std::shared_ptr<const SampleSet> TrainingData::training(std::int64_t level) const {
  const State& s = *state_;
  std::vector<WeightedSource> chosen = s.training;
  SampleOptions options = sample_options(s.recipe, s.config, true);
  if (!s.recipe.curriculum.empty()) {
    const CurriculumRecipe& wanted = s.recipe.curriculum.at(static_cast<std::size_t>(level));
    options.jitter_pixels = wanted.jitter_pixels;
    if (!wanted.sources.empty()) chosen.clear();
    for (const std::string& name : wanted.sources)
      for (std::size_t i = 0; i < s.training.size(); ++i)
        if (s.training_recipes[i].name == name) chosen.push_back(s.training[i]);
    for (std::size_t i = 0; i < wanted.weights.size(); ++i) chosen[i].weight = wanted.weights[i];
  }
  return std::make_shared<const SampleSet>(std::move(chosen), std::move(options));
}

std::vector<ValidationSet> TrainingData::validation(std::int64_t level) const {
  const State& s = *state_;
  const SampleOptions options = sample_options(s.recipe, s.config, false);
  std::vector<ValidationSet> out;
  if (s.validation.empty()) return out;
  if (!s.recipe.data.validation.empty()) {
    out.push_back({"", std::make_shared<const SampleSet>(s.validation, options)});
    return out;
  }
  std::vector<std::string> names;
  if (!s.recipe.curriculum.empty())
    names = s.recipe.curriculum.at(static_cast<std::size_t>(level)).validation;
  for (std::size_t i = 0; i < s.validation.size(); ++i) {
    const std::string& name = s.validation_recipes[i].name;
    if (!names.empty() && std::find(names.begin(), names.end(), name) == names.end()) continue;
    out.push_back({name, std::make_shared<const SampleSet>(
                             std::vector<WeightedSource>{s.validation[i]}, options)});
  }
  return out;
}

std::vector<std::shared_ptr<const SampleSource>> TrainingData::sources() const {
  std::vector<std::shared_ptr<const SampleSource>> out;
  for (const auto* list : {&state_->training, &state_->validation})
    for (const WeightedSource& each : *list) out.push_back(each.source);
  return out;
}

std::vector<std::string> TrainingData::remarks() const {
  std::vector<std::string> out;
  for (const auto& source : sources()) {
    const std::string remark = source->remark();
    if (!remark.empty() && std::find(out.begin(), out.end(), remark) == out.end())
      out.push_back(remark);
  }
  return out;
}

std::string TrainingData::shared_with_validation() const {
  const std::vector<std::shared_ptr<const SampleSource>> all = sources();
  const auto middle = all.begin() + static_cast<std::ptrdiff_t>(state_->training.size());
  if (middle == all.end()) return "";
  return wording(shared_records({all.begin(), middle}, {middle, all.end()}));
}

std::shared_ptr<const SampleSet> training_samples(const Recipe& recipe, const ModelConfig& config,
                                                  const Tokenizer& tokenizer) {
  return TrainingData(recipe, config, tokenizer).training(0);
}

std::shared_ptr<const SampleSet> validation_samples(const Recipe& recipe, const ModelConfig& config,
                                                    const Tokenizer& tokenizer) {
  const std::vector<ValidationSet> sets = TrainingData(recipe, config, tokenizer).validation(0);
  return sets.empty() ? nullptr : sets[0].samples;
}

LoaderOptions loader_options(const Recipe& recipe, const ModelConfig& config) {
  LoaderOptions out;
  out.seed = static_cast<std::uint64_t>(recipe.seed);
  out.global_batch = recipe.batch.global_size;
  out.micro_batch = recipe.batch.micro_batch;
  out.batch.pad_token = static_cast<std::int32_t>(config.decoder.pad_token_id);
  out.batch.pack_tokens = recipe.data.pack_tokens;
  out.workers = static_cast<int>(recipe.data.workers);
  return out;
}

ReadingSettings reading_settings(const Recipe& recipe) {
  ReadingSettings out;
  out.global_size = recipe.view.global_size;
  out.tile_size = recipe.view.tile_size;
  out.crop = recipe.view.crop;
  out.prompt = recipe.data.prompt;
  out.by_pieces = recipe.view.read_by == "pieces";
  out.piece_width = recipe.view.piece_width;
  out.piece_dpi = recipe.view.piece_dpi;
  out.piece_margin = recipe.data.margin;
  out.piece_text_height = recipe.data.text_height;
  out.piece_at_top = recipe.data.text_at == "top";
  return out;
}

}  // namespace lectern
