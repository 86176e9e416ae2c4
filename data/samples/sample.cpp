#include "data/samples/sample.h"

#include "core/error.h"

#include <algorithm>
#include <utility>

namespace lectern {
namespace {

void check_options(const SampleOptions& options) {
  if (options.views.empty()) fail<ConfigError>("samples: views must not be empty");
  for (const ViewOptions& view : options.views) {
    const auto smallest = std::min(view.global_size, view.crop ? view.tile_size : view.global_size);
    if (view.patch_size < 1 || smallest < view.patch_size)
      fail<ConfigError>(fmt::format("samples: views must be at least a patch of {} pixels, got {}",
                                    view.patch_size, smallest));
    const auto most = std::max(view.global_size, view.tile_size);
    if (most > 16384)
      fail<ConfigError>(fmt::format("samples: views must be at most 16384 pixels, got {}", most));
    if (options.margin < 0 || 2 * options.margin >= view.global_size)
      fail<ConfigError>(fmt::format("samples: margin must be in 0 .. {}, got {}",
                                    (view.global_size - 1) / 2, options.margin));
  }
  for (const auto& [name, value] :
       {std::pair{"padding", options.padding}, std::pair{"text_height", options.text_height},
        std::pair{"jitter_pixels", options.jitter_pixels}})
    if (value < 0 || value > 1024)
      fail<ConfigError>(fmt::format("samples: {} must be in 0 .. 1024, got {}", name, value));
}

}  // namespace

SampleSet::SampleSet(std::vector<WeightedSource> sources, SampleOptions options)
    : sources_(std::move(sources)), options_(std::move(options)) {
  check_options(options_);
  if (sources_.empty()) fail<ConfigError>("samples: sources must not be empty");
  for (const WeightedSource& each : sources_)
    if (each.source == nullptr) fail<ConfigError>("samples: sources must not be null");
}

const SampleSource& SampleSet::source(int index) const {
  return *sources_.at(static_cast<std::size_t>(index)).source;
}

SampleLengths SampleSet::lengths(const Draw& draw, int view) const {
  return source(draw.source).lengths(draw.unit, options_.views[static_cast<std::size_t>(view)]);
}

std::vector<SamplerSource> SampleSet::sampler_sources() const {
  std::vector<SamplerSource> out;
  for (const auto& [source, weight] : sources_)
    out.push_back({source->count(), weight, source->window()});
  return out;
}

std::int64_t SampleSet::units(int source_index) const { return source(source_index).count(); }
std::int64_t SampleSet::dropped(int source_index) const { return source(source_index).dropped(); }

std::int64_t SampleSet::trained_count(const Draw& draw) const {
  return lengths(draw, 0).response + 1;
}

std::int64_t SampleSet::token_count(const SampleLengths& lengths) const {
  return (options_.begin_token >= 0 ? 1 : 0) + lengths.sum() + 1;
}

std::int64_t SampleSet::token_count(const Draw& draw, int view) const {
  return token_count(lengths(draw, view));
}

std::int64_t SampleSet::longest(int view) const {
  const ViewOptions& views = options_.views[static_cast<std::size_t>(view)];
  std::int64_t most = 0;
  for (const WeightedSource& each : sources_) most = std::max(most, each.source->longest(views));
  return (options_.begin_token >= 0 ? 1 : 0) + most + 1;
}

Sample SampleSet::make(const Draw& draw, int view, bool pixels) const {
  return source(draw.source).make({options_, draw, view}, pixels);
}

WholePage SampleSet::whole_page(const Draw& draw) const {
  return source(draw.source).whole_page(draw.unit);
}

std::string SampleSet::key(const Draw& draw, int view) const {
  return source(draw.source).key({options_, draw, view});
}

}  // namespace lectern
