#include "data/sample.h"

#include "core/error.h"
#include "core/random.h"
#include "data/files.h"
#include "data/unit_index.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace lectern {
namespace {

using detail::Unit;
using detail::UnitIndex;

constexpr std::array<std::pair<std::string_view, Level>, 5> kLevels{{{"word", Level::word},
                                                                     {"line", Level::line},
                                                                     {"region", Level::region},
                                                                     {"page", Level::page},
                                                                     {"text", Level::text}}};

/// Whole pixels of the page around a box.
struct Rectangle {
  std::int64_t left, top, width, height;
};

Rectangle around(const Box& box, std::int64_t padding) {
  const auto left = static_cast<std::int64_t>(std::floor(box.left)) - padding;
  const auto top = static_cast<std::int64_t>(std::floor(box.top)) - padding;
  return {left, top, static_cast<std::int64_t>(std::ceil(box.right)) + padding - left,
          static_cast<std::int64_t>(std::ceil(box.bottom)) + padding - top};
}

Box join(const Box& a, const Box& b) {
  return {std::min(a.left, b.left), std::min(a.top, b.top), std::max(a.right, b.right),
          std::max(a.bottom, b.bottom)};
}

/// Lays `piece` on `canvas`; what leaves the canvas is cut off.
void paste(Image& canvas, const Image& piece, std::int64_t left, std::int64_t top) {
  const std::int64_t begin = std::max<std::int64_t>(left, 0);
  const std::int64_t end = std::min(left + piece.width, canvas.width);
  if (begin >= end) return;
  for (std::int64_t y = std::max<std::int64_t>(top, 0);
       y < std::min(top + piece.height, canvas.height); ++y)
    std::memcpy(canvas.row(y) + 3 * begin, piece.row(y - top) + 3 * (begin - left),
                static_cast<std::size_t>(end - begin) * 3);
}

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
  if (source.shards == nullptr) fail<ConfigError>("samples: a source has no shards");
  const std::string where =
      fmt::format("samples: {} of {}", name_of(source.level), source.shards->folder().string());
  if (source.max_response_tokens < 1)
    fail<ConfigError>(fmt::format("{}: max_response_tokens must be >= 1, got {}", where,
                                  source.max_response_tokens));
  if (source.max_characters < 0)
    fail<ConfigError>(
        fmt::format("{}: max_characters must be >= 0, got {}", where, source.max_characters));
  if (source.region_lines < 1)
    fail<ConfigError>(
        fmt::format("{}: region_lines must be >= 1, got {}", where, source.region_lines));
  if (source.window_pages < 0)
    fail<ConfigError>(
        fmt::format("{}: window_pages must be >= 0, got {}", where, source.window_pages));
}

struct Source {
  SampleSource options;
  std::vector<std::int32_t> prompt_ids;
  UnitIndex index;
};

}  // namespace

Level level_from(std::string_view name) {
  for (const auto& [text, level] : kLevels)
    if (text == name) return level;
  fail<ConfigError>(
      fmt::format("level must be word, line, region, page or text, got \"{}\"", name));
}

std::string_view name_of(Level level) { return kLevels[static_cast<std::size_t>(level)].first; }

struct SampleSet::State {
  SampleOptions options;
  std::vector<std::int32_t> newline_ids;
  std::vector<Source> sources;

  const Source& source(const Draw& draw) const {
    return sources[static_cast<std::size_t>(draw.source)];
  }
  const Unit& unit(const Draw& draw) const {
    return source(draw).index.units[static_cast<std::size_t>(draw.unit)];
  }
  const ViewOptions& view(int index) const {
    return options.views[static_cast<std::size_t>(index)];
  }

  ViewGrid grid(const Draw& draw, int view_index) const {
    if (source(draw).options.level != Level::page) return {};
    const auto [width, height] =
        source(draw).options.shards->size(static_cast<std::int64_t>(unit(draw).page));
    return choose_grid(width, height, view(view_index));
  }
  std::int64_t image_tokens(const Draw& draw, int view_index) const {
    if (source(draw).options.level == Level::text) return 0;
    return image_token_count(view(view_index), grid(draw, view_index));
  }

  /// Where a pasted text moves this time.
  std::array<std::int64_t, 2> jitter(const Draw& draw) const {
    if (options.jitter_pixels == 0) return {0, 0};
    Random random(options.seed, "sample/jitter");
    random.seek(4 * draw.position);
    const auto choices = static_cast<std::uint64_t>(2 * options.jitter_pixels + 1);
    const auto x = static_cast<std::int64_t>(random.below(choices)) - options.jitter_pixels;
    return {x, static_cast<std::int64_t>(random.below(choices)) - options.jitter_pixels};
  }

  /// Everything that the pixels depend on, but for the page image itself.
  std::string key(const Draw& draw, int view_index, const ShardPage& page) const {
    const Unit& piece = unit(draw);
    const ViewOptions& views = view(view_index);
    const Level level = source(draw).options.level;
    const ViewGrid tiles = grid(draw, view_index);
    std::string out = fmt::format("{}|{}x{}|{}|{}+{}|{}:{}x{}:{}", page.id, page.width, page.height,
                                  name_of(level), piece.first, piece.count, views.global_size,
                                  tiles.columns, tiles.rows, views.tile_size);
    if (level == Level::page || level == Level::text) return out;
    const auto [x, y] = jitter(draw);
    return out + fmt::format("|{},{},{},{},{}", options.margin, options.padding,
                             options.text_height, x, y);
  }

  void fill_text(const Draw& draw, const ShardPage& page, Sample& out) const;
  void fill_pixels(const Draw& draw, int view_index, const DecodedPage& page, Sample& out) const;
  void check_units(const Draw& draw, const ShardPage& page) const;
};

/// The tables were read when the set was made; the file may have changed since.
void SampleSet::State::check_units(const Draw& draw, const ShardPage& page) const {
  const Unit& piece = unit(draw);
  const Level level = source(draw).options.level;
  std::int64_t limit = 1;
  if (level == Level::word) limit = page.words.size();
  if (level == Level::line || level == Level::region) limit = page.lines.size();
  if (static_cast<std::int64_t>(piece.first) + piece.count > limit)
    fail<IoError>(fmt::format("{}: page {} must have {} {}s, got {}",
                              source(draw).options.shards->folder().string(), page.id,
                              piece.first + piece.count, name_of(level), limit));
}

void SampleSet::State::fill_text(const Draw& draw, const ShardPage& page, Sample& out) const {
  const Unit& piece = unit(draw);
  const Level level = source(draw).options.level;
  if (level == Level::page || level == Level::text) {
    out.text = page.text;
    out.response_ids = page.ids;
    out.box = {0, 0, static_cast<double>(page.width), static_cast<double>(page.height)};
    return;
  }
  const TextUnits& units = level == Level::word ? page.words : page.lines;
  for (std::int64_t i = piece.first; i < piece.first + piece.count; ++i) {
    const bool begins = i == piece.first;
    if (!begins) {
      out.text += '\n';
      out.response_ids.insert(out.response_ids.end(), newline_ids.begin(), newline_ids.end());
    }
    const auto ids = units.ids[i];
    out.text += units.text(i);
    out.response_ids.insert(out.response_ids.end(), ids.begin(), ids.end());
    out.box = begins ? units.box(i) : join(out.box, units.box(i));
  }
}

void SampleSet::State::fill_pixels(const Draw& draw, int view_index, const DecodedPage& page,
                                   Sample& out) const {
  const ViewOptions& views = view(view_index);
  const Level level = source(draw).options.level;
  if (level == Level::page) {
    ImageViews made = make_views(page.crop(0, 0, page.page.width, page.page.height), views);
    out.global = std::move(made.global);
    out.local = std::move(made.local);
    return;
  }
  const std::int64_t size = views.global_size, room = size - 2 * options.margin;
  const Rectangle cut = around(out.box, options.padding);
  Image piece = page.crop(cut.left, cut.top, cut.width, cut.height);
  double scale = 1;
  if (options.text_height > 0 && level != Level::region)
    scale = static_cast<double>(options.text_height) / std::max(out.box.bottom - out.box.top, 1.0);
  const auto width = static_cast<double>(cut.width), height = static_cast<double>(cut.height);
  scale = std::min({scale, static_cast<double>(room) / width, static_cast<double>(room) / height});
  if (scale != 1)
    piece = resize_bicubic(piece, std::max<std::int64_t>(std::lround(width * scale), 1),
                           std::max<std::int64_t>(std::lround(height * scale), 1));
  out.global = make_image(size, size);
  const auto [x, y] = jitter(draw);
  const std::int64_t top = level == Level::region ? options.margin : (size - piece.height) / 2;
  paste(out.global, piece, options.margin + x, top + y);
}

SampleSet::SampleSet(std::vector<SampleSource> sources, SampleOptions options,
                     const Tokenizer& tokenizer)
    : state_(std::make_unique<State>()) {
  check_options(options);
  if (sources.empty()) fail<ConfigError>("samples: sources must not be empty");
  state_->options = std::move(options);
  state_->newline_ids = tokenizer.encode("\n");
  const std::string sha256 = sha256_of(tokenizer.json());
  for (SampleSource& source : sources) {
    check_source(source);
    const std::string folder = source.shards->folder().string();
    if (source.shards->tokenizer_sha256() != sha256)
      fail<ConfigError>(
          fmt::format("samples: {} was made with another tokenizer (sha256 {}), got one with {}",
                      folder, source.shards->tokenizer_sha256(), sha256));
    UnitIndex index =
        detail::index_units(source, static_cast<std::int64_t>(state_->newline_ids.size()));
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
  return static_cast<std::int64_t>(
      state_->sources.at(static_cast<std::size_t>(source)).index.units.size());
}

std::int64_t SampleSet::dropped(int source) const {
  return state_->sources.at(static_cast<std::size_t>(source)).index.dropped;
}

std::int64_t SampleSet::trained_count(const Draw& draw) const {
  return state_->unit(draw).tokens + 1;
}

std::int64_t SampleSet::token_count(const Draw& draw, int view) const {
  return (state_->options.begin_token >= 0 ? 1 : 0) + state_->image_tokens(draw, view) +
         static_cast<std::int64_t>(state_->source(draw).prompt_ids.size()) + trained_count(draw);
}

std::int64_t SampleSet::longest(int view) const {
  std::int64_t most = 0;
  for (std::size_t s = 0; s < state_->sources.size(); ++s)
    for (std::int64_t unit = 0; unit < units(static_cast<int>(s)); ++unit)
      most = std::max(most, token_count({0, static_cast<int>(s), unit, 0}, view));
  return most;
}

ViewGrid SampleSet::grid(const Draw& draw, int view) const { return state_->grid(draw, view); }

std::string SampleSet::key(const Draw& draw, int view) const {
  const auto page =
      state_->source(draw).options.shards->read(static_cast<std::int64_t>(state_->unit(draw).page));
  return state_->key(draw, view, page->page);
}

Sample SampleSet::make(const Draw& draw, int view, bool pixels) const {
  const Source& source = state_->source(draw);
  const ShardSet& shards = *source.options.shards;
  const auto at = static_cast<std::int64_t>(state_->unit(draw).page);
  pixels = pixels && source.options.level != Level::text;
  const auto page = pixels ? shards.decoded(at) : shards.read(at);
  state_->check_units(draw, page->page);
  Sample out;
  out.level = source.options.level;
  out.page_id = page->page.id;
  out.prompt_ids = source.prompt_ids;
  const ViewGrid tiles = state_->grid(draw, view);
  out.columns = tiles.columns;
  out.rows = tiles.rows;
  out.image_tokens = state_->image_tokens(draw, view);
  out.key = state_->key(draw, view, page->page);
  state_->fill_text(draw, page->page, out);
  if (static_cast<std::int64_t>(out.response_ids.size()) + 1 != trained_count(draw))
    fail<IoError>(fmt::format("{}: page {} changed while it was in use", shards.folder().string(),
                              out.page_id));
  if (pixels) state_->fill_pixels(draw, view, *page, out);
  return out;
}

}  // namespace lectern
