// The samples of several sources as one numbered whole: what a loader and evaluation draw from.
#pragma once

#include "data/samples/source.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace lectern {

/// One ingredient of a mixture.
struct WeightedSource {
  std::shared_ptr<const SampleSource> source;
  double weight = 1;  // how often it is drawn
};

/// Functions may be called from several threads.
class SampleSet {
 public:
  /// Throws ConfigError on bad options and without sources.
  SampleSet(std::vector<WeightedSource> sources, SampleOptions options);

  const SampleOptions& options() const { return options_; }
  /// What a Sampler over this set needs.
  std::vector<SamplerSource> sampler_sources() const;
  /// Samples of a source.
  std::int64_t units(int source) const;
  /// Samples that did not pass its filters.
  std::int64_t dropped(int source) const;

  /// Tokens of the whole sample, and of those the trained ones.
  std::int64_t token_count(const Draw& draw, int view = 0) const;
  std::int64_t trained_count(const Draw& draw) const;
  /// The largest token_count of all samples; of drawn ones the largest that is possible.
  std::int64_t longest(int view = 0) const;
  /// What they are made of, and the sample's local tiles.
  SampleLengths lengths(const Draw& draw, int view = 0) const;
  /// Tokens of a sample of these lengths.
  std::int64_t token_count(const SampleLengths& lengths) const;

  Sample make(const Draw& draw, int view = 0, bool pixels = true) const;
  /// The page that a sample shows a part of. Throws ConfigError for pieces of none.
  WholePage whole_page(const Draw& draw) const;
  /// Sample::key, and nothing else of it.
  std::string key(const Draw& draw, int view = 0) const;

 private:
  const SampleSource& source(int index) const;

  std::vector<WeightedSource> sources_;
  SampleOptions options_;
};

}  // namespace lectern
