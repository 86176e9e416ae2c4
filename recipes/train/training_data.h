// The [data], [view] and [[curriculum]] tables of a recipe as samples.
#pragma once

#include "data/samples/loader.h"
#include "data/samples/sample.h"
#include "data/tokenizer/tokenizer.h"
#include "nn/model_config.h"
#include "recipes/recipe/recipe.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace lectern {

/// A set of held-out samples that is read and scored on its own.
struct ValidationSet {
  std::string name;  // of the source; empty: data.validation, which is one mixture
  std::shared_ptr<const SampleSet> samples;
};

/// The sources of a recipe, each opened once, as the mixtures of the curriculum's levels.
class TrainingData {
 public:
  /// Opens shards and reads texts. Throws ConfigError and IoError naming the source.
  TrainingData(const Recipe& recipe, const ModelConfig& config, const Tokenizer& tokenizer);
  ~TrainingData();

  /// At least 1: a recipe without a curriculum is one level.
  std::int64_t levels() const;
  /// Samples of level 0, 1, ...
  std::shared_ptr<const SampleSet> training(std::int64_t level) const;
  /// At the first resolution and without jitter; none when the recipe has no validation.
  std::vector<ValidationSet> validation(std::int64_t level) const;

  /// All of them: those that are trained on, then the held-out ones.
  std::vector<std::shared_ptr<const SampleSource>> sources() const;
  /// What filters left out of the sources, a sentence each.
  std::vector<std::string> remarks() const;
  /// What held-out sources share with those that are trained on, in a sentence; "" when nothing.
  /// Reads all held-out texts.
  std::string shared_with_validation() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Samples of the first level.
std::shared_ptr<const SampleSet> training_samples(const Recipe& recipe, const ModelConfig& config,
                                                  const Tokenizer& tokenizer);
/// The first validation set of the first level. Null when the recipe has none.
std::shared_ptr<const SampleSet> validation_samples(const Recipe& recipe, const ModelConfig& config,
                                                    const Tokenizer& tokenizer);

/// How one rank that trains alone would load them.
LoaderOptions loader_options(const Recipe& recipe, const ModelConfig& config);

/// How a model of this recipe is asked: its views and its prompt.
ReadingSettings reading_settings(const Recipe& recipe);

}  // namespace lectern
