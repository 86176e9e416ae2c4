// Samples that are drawn from text.
#include "core/error.h"
#include "data/samples/state.h"

#include <algorithm>

namespace lectern {
namespace {

/// Texts that are tried for one sample until one is short enough.
constexpr int kAttempts = 16;

}  // namespace

using detail::DrawnText;
using detail::Source;

std::string SampleSet::State::drawn_key(const Draw& draw, int view_index) const {
  const ViewOptions& views = view(view_index);
  const ViewGrid tiles = grid(draw, view_index);
  return fmt::format("drawn|{}|{}|{}:{}x{}:{}|{},{}{}",
                     source(draw).options.synthetic->fingerprint(), draw.unit, views.global_size,
                     tiles.columns, tiles.rows, views.tile_size, options.margin,
                     options.jitter_pixels, options.at_top ? "|top" : "");
}

/// The first text that is short enough and has no special token in it.
DrawnText SampleSet::State::drawn_text(const Draw& draw) const {
  const SampleSource& from = source(draw).options;
  for (DrawnText out; out.attempt < kAttempts; ++out.attempt) {
    out.text = from.synthetic->text(static_cast<std::uint64_t>(draw.unit), out.attempt);
    out.ids = tokenizer.encode(out.text);
    if (!out.ids.empty() && static_cast<std::int64_t>(out.ids.size()) <= from.max_response_tokens &&
        std::none_of(out.ids.begin(), out.ids.end(),
                     [&](std::int32_t id) { return tokenizer.is_special(id); }))
      return out;
  }
  fail<ConfigError>(fmt::format(
      "samples: drawn {} {}: no text of at most max_response_tokens = {} tokens in {} tries",
      name_of(from.level), draw.unit, from.max_response_tokens, kAttempts));
}

Sample SampleSet::State::make_drawn(const Draw& draw, int view_index, bool pixels) const {
  const Source& from = source(draw);
  const auto index = static_cast<std::uint64_t>(draw.unit);
  DrawnText text = drawn_text(draw);
  Sample out;
  out.level = from.options.level;
  out.page_id = fmt::format("drawn/{}", draw.unit);
  out.prompt_ids = from.prompt_ids;
  out.text = std::move(text.text);
  out.response_ids = std::move(text.ids);
  const ViewGrid tiles = grid(draw, view_index);
  out.columns = tiles.columns;
  out.rows = tiles.rows;
  out.image_tokens = image_tokens(draw, view_index);
  out.key = drawn_key(draw, view_index);
  if (!pixels) return out;
  if (out.level == Level::page) {
    ImageViews made =
        make_views(from.options.synthetic->draw_page(index, text.attempt), view(view_index));
    out.global = std::move(made.global);
    out.local = std::move(made.local);
    return out;
  }
  const Placement place{view(view_index).global_size, options.margin, options.jitter_pixels,
                        options.at_top};
  out.global = from.options.synthetic->draw(index, place, text.attempt);
  return out;
}

/// No text is longer than max_response_tokens, no page has more tiles than max_tiles.
std::int64_t SampleSet::State::longest_drawn(const Source& from, int view_index) const {
  const ViewOptions& views = view(view_index);
  ViewGrid most;
  if (from.options.level == Level::page && views.crop) most = {views.max_tiles, 1};
  return (options.begin_token >= 0 ? 1 : 0) + image_token_count(views, most) +
         static_cast<std::int64_t>(from.prompt_ids.size()) + from.options.max_response_tokens + 1;
}

}  // namespace lectern
