// The [data] and [view] tables of a recipe as samples.
#pragma once

#include "data/sample.h"
#include "data/tokenizer.h"
#include "nn/ocr2/config.h"
#include "recipes/recipe.h"

#include <memory>

namespace lectern {

/// Samples of data.shards in the recipe's mixture of levels.
std::shared_ptr<const SampleSet> training_samples(const Recipe& recipe, const Ocr2Config& config,
                                                  const Tokenizer& tokenizer);
/// The same mixture over data.validation, at the first resolution and without jitter. Null when the
/// recipe has no validation shards.
std::shared_ptr<const SampleSet> validation_samples(const Recipe& recipe, const Ocr2Config& config,
                                                    const Tokenizer& tokenizer);

/// How a model of this recipe is asked: its views and its prompt.
ReadingSettings reading_settings(const Recipe& recipe);

}  // namespace lectern
