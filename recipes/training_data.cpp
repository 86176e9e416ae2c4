#include "recipes/training_data.h"

#include "data/shard_set.h"
#include "recipes/reader.h"

#include <algorithm>

namespace lectern {
namespace {

/// Shares of the levels that a recipe draws.
std::vector<std::pair<Level, double>> level_shares(const DataRecipe& data) {
  if (data.level != "mixed") return {{level_from(data.level), 1.0}};
  std::vector<std::pair<Level, double>> out;
  if (data.page_share > 0) out.emplace_back(Level::page, data.page_share);
  if (data.line_share > 0) out.emplace_back(Level::line, data.line_share);
  if (data.word_share > 0) out.emplace_back(Level::word, data.word_share);
  return out;
}

SampleOptions sample_options(const Recipe& recipe, const Ocr2Config& config, bool training) {
  SampleOptions out;
  Ocr2Config asked = config;
  asked.reading = reading_settings(recipe);
  ViewOptions view = view_options(asked);
  out.views = {view};
  if (training && !recipe.view.resolutions.empty()) {
    out.views.clear();
    for (const std::int64_t size : recipe.view.resolutions) {
      view.global_size = size;
      out.views.push_back(view);
    }
  }
  out.begin_token = static_cast<std::int32_t>(config.text.bos_token_id);
  out.end_token = static_cast<std::int32_t>(config.text.eos_token_id);
  out.image_token = static_cast<std::int32_t>(config.image_token_id);
  out.margin = recipe.data.margin;
  out.text_height = recipe.data.text_height;
  out.jitter_pixels = training ? recipe.data.jitter_pixels : 0;
  out.seed = static_cast<std::uint64_t>(recipe.seed);
  return out;
}

std::shared_ptr<const SampleSet> make_samples(const Recipe& recipe, const Ocr2Config& config,
                                              const Tokenizer& tokenizer,
                                              const std::vector<std::string>& folders,
                                              const std::vector<double>& weights, bool training) {
  std::vector<SampleSource> sources;
  for (std::size_t i = 0; i < folders.size(); ++i) {
    const auto shards = std::make_shared<const ShardSet>(folders[i]);
    const double weight = weights.empty() ? static_cast<double>(shards->pages()) : weights[i];
    for (const auto& [level, share] : level_shares(recipe.data)) {
      SampleSource source;
      source.shards = shards;
      source.level = level;
      source.weight = weight * share;
      source.prompt = recipe.data.prompt;
      source.ascii_only = recipe.data.ascii_only;
      source.max_characters = recipe.data.max_characters;
      source.max_response_tokens = recipe.data.max_text_tokens;
      sources.push_back(std::move(source));
    }
  }
  return std::make_shared<const SampleSet>(std::move(sources),
                                           sample_options(recipe, config, training), tokenizer);
}

}  // namespace

std::shared_ptr<const SampleSet> training_samples(const Recipe& recipe, const Ocr2Config& config,
                                                  const Tokenizer& tokenizer) {
  return make_samples(recipe, config, tokenizer, recipe.data.shards, recipe.data.shard_weights,
                      true);
}

std::shared_ptr<const SampleSet> validation_samples(const Recipe& recipe, const Ocr2Config& config,
                                                    const Tokenizer& tokenizer) {
  if (recipe.data.validation.empty()) return nullptr;
  return make_samples(recipe, config, tokenizer, {recipe.data.validation}, {}, false);
}

ReadingSettings reading_settings(const Recipe& recipe) {
  ReadingSettings out;
  out.global_size = recipe.view.global_size;
  out.tile_size = recipe.view.tile_size;
  out.crop = recipe.view.crop;
  out.prompt = recipe.data.prompt;
  return out;
}

}  // namespace lectern
