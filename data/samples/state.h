// What a SampleSet holds. Private to this room.
#pragma once

#include "data/samples/sample.h"
#include "data/samples/unit_index.h"

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace lectern {
namespace detail {

/// One ingredient with what was read of it.
struct Source {
  SampleSource options;
  std::vector<std::int32_t> prompt_ids;
  UnitIndex index;  // of shards

  bool is_drawn() const { return options.synthetic != nullptr; }
  /// Units are runs or windows, made of words.
  bool is_cut() const {
    return options.cut_width > 0 &&
           (options.level == Level::line || options.level == Level::region);
  }
};

/// What a drawn sample says.
struct DrawnText {
  std::string text;
  std::vector<std::int32_t> ids;
  int attempt = 0;
};

}  // namespace detail

struct SampleSet::State {
  State(SampleOptions given, const Tokenizer& with)
      : options(std::move(given)), tokenizer(with), newline_ids(with.encode("\n")) {}

  SampleOptions options;
  Tokenizer tokenizer;
  std::vector<std::int32_t> newline_ids;
  std::vector<detail::Source> sources;

  const detail::Source& source(const Draw& draw) const {
    return sources[static_cast<std::size_t>(draw.source)];
  }
  const detail::Unit& unit(const Draw& draw) const {
    return source(draw).index.units[static_cast<std::size_t>(draw.unit)];
  }
  const ViewOptions& view(int index) const {
    return options.views[static_cast<std::size_t>(index)];
  }

  ViewGrid grid(const Draw& draw, int view_index) const;
  std::int64_t image_tokens(const Draw& draw, int view_index) const;
  /// Where a pasted text moves this time.
  std::array<std::int64_t, 2> jitter(const Draw& draw) const;
  /// Everything that the pixels depend on, but for the page image itself.
  std::string key(const Draw& draw, int view_index, const ShardPage& page) const;

  std::string drawn_key(const Draw& draw, int view_index) const;
  detail::DrawnText drawn_text(const Draw& draw) const;
  Sample make_drawn(const Draw& draw, int view_index, bool pixels) const;
  Sample make_cut(const Draw& draw, int view_index, bool pixels) const;
  std::int64_t longest_drawn(const detail::Source& from, int view_index) const;

  std::vector<std::vector<std::int64_t>> cut_words(const Draw& draw, const ShardPage& page) const;
  void fill_text(const Draw& draw, const ShardPage& page, Sample& out) const;
  void fill_pixels(const Draw& draw, int view_index, const DecodedPage& page, Sample& out) const;
  void check_units(const Draw& draw, const ShardPage& page) const;
};

}  // namespace lectern
