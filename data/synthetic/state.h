// What a synthetic source knows and how a sample looks. Private to this room.
#pragma once

#include "data/synthetic/image_effects.h"
#include "data/synthetic/synthetic.h"
#include "data/synthetic/text.h"

#include <string>
#include <utility>
#include <vector>

namespace lectern {
namespace detail {

constexpr int kLeastContrast = 64;  // grey levels between ink and paper

/// Chance decisions about how a sample looks, in a fixed order.
struct Style {
  std::size_t face = 0;
  double em = 12, stretch = 1, radians = 0, leading = 1.2, blur = 0, noise = 0;
  double shift_x = 0, shift_y = 0;  // -1 .. 1 of the jitter, and a part of a pixel
  double phase_x = 0, phase_y = 0;
  int jpeg = 0;
  Colour ink{}, paper{};
};

}  // namespace detail

struct SyntheticSource::State {
  TextCorpus corpus;
  SyntheticOptions options;
  std::vector<FontFace> faces;
  std::vector<detail::FaceCoverage> coverage;
  std::vector<std::vector<std::size_t>> families;  // faces of each
  std::vector<std::string> missing;
  std::string fingerprint;

  State(TextCorpus text, SyntheticOptions given)
      : corpus(std::move(text)), options(std::move(given)) {}

  void find_faces();
  void drop_unspellable();
  detail::Style style(std::uint64_t index) const;
  Random text_stream(std::uint64_t index, int attempt) const;
  detail::TextChooser chooser(std::uint64_t index, int attempt, std::size_t face) const {
    return {corpus, options, coverage[face], text_stream(index, attempt)};
  }
  std::vector<std::string> lines(std::uint64_t index, int attempt, std::size_t face) const;
  detail::PagePlan page(std::uint64_t index, int attempt, std::size_t face) const;
  Image finish(const Canvas& canvas, const detail::Style& style, std::uint64_t index) const;
  void draw_page_line(Canvas& canvas, const detail::PagePlan& plan, const detail::PageLine& line,
                      const detail::Style& style, double scale) const;
  const FontFace& page_face(const detail::PageLine& line, const detail::Style& style) const;
};

}  // namespace lectern
