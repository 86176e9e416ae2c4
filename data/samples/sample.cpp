#include "data/samples/sample.h"

#include "core/error.h"
#include "core/io/files.h"
#include "data/samples/state.h"

#include <algorithm>

namespace lectern {
namespace {

using detail::Source;
using detail::UnitIndex;

/// Samples of a drawn source: more than any run takes, and the sampler permutes them for nothing.
constexpr std::int64_t kDrawnUnits = std::int64_t{1} << 32;

std::string_view strip_image_tag(std::string_view prompt) {
  constexpr std::string_view kTag = "<image>";
  if (prompt.starts_with(kTag)) prompt.remove_prefix(kTag.size());
  if (prompt.find(kTag) != std::string_view::npos)
    fail<ConfigError>(
        fmt::format("samples: <image> must come first in the prompt, got \"{}\"", prompt));
  return prompt;
}

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

void check_source(const SampleSource& source) {
  if (source.shards == nullptr && source.synthetic == nullptr)
    fail<ConfigError>("samples: a source has no shards and draws nothing");
  if (source.shards != nullptr && source.synthetic != nullptr)
    fail<ConfigError>("samples: a source must have shards or be drawn, got both");
  const std::string where =
      fmt::format("samples: {} of {}", name_of(source.level),
                  source.shards ? source.shards->folder().string() : "drawn text");
  if (source.shards && source.level == Level::character)
    fail<ConfigError>(fmt::format("{}: shards have no level character", where));
  if (source.max_response_tokens < 1)
    fail<ConfigError>(fmt::format("{}: max_response_tokens must be >= 1, got {}", where,
                                  source.max_response_tokens));
  if (source.max_characters < 0)
    fail<ConfigError>(
        fmt::format("{}: max_characters must be >= 0, got {}", where, source.max_characters));
  if (source.cut_width < 0)
    fail<ConfigError>(fmt::format("{}: cut_width must be >= 0, got {}", where, source.cut_width));
  if (source.region_lines < 1)
    fail<ConfigError>(
        fmt::format("{}: region_lines must be >= 1, got {}", where, source.region_lines));
  if (source.window_pages < 0)
    fail<ConfigError>(
        fmt::format("{}: window_pages must be >= 0, got {}", where, source.window_pages));
}

}  // namespace

ViewGrid SampleSet::State::grid(const Draw& draw, int view_index) const {
  const Source& from = source(draw);
  if (from.options.level != Level::page) return {};
  const auto [width, height] =
      from.is_drawn() ? from.options.synthetic->page_size(static_cast<std::uint64_t>(draw.unit))
                      : from.options.shards->size(static_cast<std::int64_t>(unit(draw).page));
  return choose_grid(width, height, view(view_index));
}

std::int64_t SampleSet::State::image_tokens(const Draw& draw, int view_index) const {
  if (source(draw).options.level == Level::text) return 0;
  return image_token_count(view(view_index), grid(draw, view_index));
}

SampleSet::SampleSet(std::vector<SampleSource> sources, SampleOptions options,
                     const Tokenizer& tokenizer)
    : state_(std::make_unique<State>(std::move(options), tokenizer)) {
  check_options(state_->options);
  if (sources.empty()) fail<ConfigError>("samples: sources must not be empty");
  const std::string sha256 = sha256_of(tokenizer.json());
  for (SampleSource& source : sources) {
    check_source(source);
    if (source.synthetic) {
      source.level = source.synthetic->options().level;
      std::vector<std::int32_t> prompt = tokenizer.encode(strip_image_tag(source.prompt));
      state_->sources.push_back({std::move(source), std::move(prompt), {}});
      state_->drawn_text({0, static_cast<int>(state_->sources.size()) - 1, 0, 0});
      continue;
    }
    const std::string folder = source.shards->folder().string();
    if (source.shards->tokenizer_sha256() != sha256)
      fail<ConfigError>(
          fmt::format("samples: {} was made with another tokenizer (sha256 {}), got one with {}",
                      folder, source.shards->tokenizer_sha256(), sha256));
    UnitIndex index = detail::index_units(source, tokenizer);
    if (index.units.empty())
      fail<ConfigError>(fmt::format("samples: no {} of {} passes the filters ({} did not)",
                                    name_of(source.level), folder, index.dropped));
    index.units.shrink_to_fit();
    std::vector<std::int32_t> prompt;
    if (source.level != Level::text) prompt = tokenizer.encode(strip_image_tag(source.prompt));
    state_->sources.push_back({std::move(source), std::move(prompt), std::move(index)});
  }
}

SampleSet::~SampleSet() = default;
SampleSet::SampleSet(SampleSet&&) noexcept = default;
const SampleOptions& SampleSet::options() const { return state_->options; }

std::vector<SamplerSource> SampleSet::sampler_sources() const {
  std::vector<SamplerSource> out;
  for (const Source& source : state_->sources) {
    if (source.is_drawn()) {
      out.push_back({kDrawnUnits, source.options.weight, 0});
      continue;
    }
    const auto units = static_cast<std::int64_t>(source.index.units.size());
    const Level level = source.options.level;
    const bool windowed = level != Level::page && level != Level::text;
    const std::int64_t pages = std::max<std::int64_t>(source.options.shards->pages(), 1);
    const std::int64_t window =
        windowed && source.options.window_pages > 0
            ? std::max<std::int64_t>(units * source.options.window_pages / pages, 1)
            : 0;
    out.push_back({units, source.options.weight, std::min(window, units)});
  }
  return out;
}

std::int64_t SampleSet::units(int source) const {
  const Source& from = state_->sources.at(static_cast<std::size_t>(source));
  return from.is_drawn() ? kDrawnUnits : static_cast<std::int64_t>(from.index.units.size());
}

std::int64_t SampleSet::dropped(int source) const {
  return state_->sources.at(static_cast<std::size_t>(source)).index.dropped;
}

std::int64_t SampleSet::trained_count(const Draw& draw) const {
  if (state_->source(draw).is_drawn())
    return static_cast<std::int64_t>(state_->drawn_text(draw).ids.size()) + 1;
  return state_->unit(draw).tokens + 1;
}

std::int64_t SampleSet::token_count(const Draw& draw, int view) const {
  return (state_->options.begin_token >= 0 ? 1 : 0) + state_->image_tokens(draw, view) +
         static_cast<std::int64_t>(state_->source(draw).prompt_ids.size()) + trained_count(draw);
}

std::int64_t SampleSet::image_tokens(const Draw& draw, int view) const {
  return state_->image_tokens(draw, view);
}

std::int64_t SampleSet::longest(int view) const {
  std::int64_t most = 0;
  for (std::size_t s = 0; s < state_->sources.size(); ++s) {
    if (state_->sources[s].is_drawn()) {
      most = std::max(most, state_->longest_drawn(state_->sources[s], view));
      continue;
    }
    for (std::int64_t unit = 0; unit < units(static_cast<int>(s)); ++unit)
      most = std::max(most, token_count({0, static_cast<int>(s), unit, 0}, view));
  }
  return most;
}

ViewGrid SampleSet::grid(const Draw& draw, int view) const { return state_->grid(draw, view); }

std::string SampleSet::key(const Draw& draw, int view) const {
  if (state_->source(draw).is_drawn()) return state_->drawn_key(draw, view);
  const auto page =
      state_->source(draw).options.shards->read(static_cast<std::int64_t>(state_->unit(draw).page));
  return state_->key(draw, view, page->page);
}

WholePage SampleSet::whole_page(const Draw& draw) const {
  const Source& from = state_->source(draw);
  if (from.is_drawn())
    return {from.options.synthetic->draw_page(static_cast<std::uint64_t>(draw.unit),
                                              state_->drawn_text(draw).attempt),
            0};
  const auto page =
      from.options.shards->decoded(static_cast<std::int64_t>(state_->unit(draw).page));
  return {page->crop(0, 0, page->page.width, page->page.height), page->page.dots_per_inch};
}

Sample SampleSet::make(const Draw& draw, int view, bool pixels) const {
  return state_->source(draw).is_drawn() ? state_->make_drawn(draw, view, pixels)
                                         : state_->make_cut(draw, view, pixels);
}

}  // namespace lectern
