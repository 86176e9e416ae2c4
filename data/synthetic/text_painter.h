// Lines of text as outlines, with cairo and pango.
//
// Outlines are taken without hinting at one size for each face and transformed afterwards, so that
// a line looks the same at every size and place but for the sampling, and a glyph is decoded once.
// Functions may be called from several threads, of which one at a time shapes. The same text in the
// same face gives the same outlines; another version of a font or of these libraries may not.
#pragma once

#include "data/pages/page.h"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// One face of a font that the machine has.
struct FontFace {
  std::string description;  // pango's, without a size: "Liberation Serif Bold Italic"
  std::string family;
  bool bold = false, italic = false;
};

/// Faces that were designed (not slanted or emboldened by rule) of a family, none when the machine
/// lacks it.
std::vector<FontFace> faces_of(const std::string& family);
/// All families of the machine, ascending.
std::vector<std::string> font_families();
/// Which of `characters` the face has.
std::vector<bool> coverage_of(const FontFace& face, const std::vector<char32_t>& characters);
/// x' = xx x + xy y + x0, y' = yx x + yy y + y0.
struct Affine {
  double xx = 1, yx = 0, xy = 0, yy = 1, x0 = 0, y0 = 0;
};

/// A line in units of its font size: the baseline begins at (0, 0), y points down.
class LineOutline {
 public:
  /// Throws ConfigError when the face lacks a character of the text (`characters` and `face` are
  /// named), so that no sample shows a box in place of a letter.
  LineOutline(const FontFace& face, std::string_view text);
  ~LineOutline();
  LineOutline(LineOutline&&) noexcept;
  LineOutline& operator=(LineOutline&&) noexcept;

  double advance() const { return advance_; }
  double ascent() const { return ascent_; }    // above the baseline, of the face, > 0
  double descent() const { return descent_; }  // below it, > 0
  /// What is inked; empty (all 0) for a line of spaces.
  const Box& ink() const { return ink_; }

 private:
  friend class Canvas;
  struct Path;
  std::unique_ptr<Path> path_;
  double advance_ = 0, ascent_ = 0, descent_ = 0;
  Box ink_;
};

/// How much of each pixel is inked, 0 .. 255.
class Canvas {
 public:
  Canvas(std::int64_t width, std::int64_t height);
  ~Canvas();
  Canvas(const Canvas&) = delete;
  Canvas& operator=(const Canvas&) = delete;

  /// Fills the outline, transformed from its units to pixels.
  void draw(const LineOutline& line, const Affine& transform);
  /// Fills a rectangle (rules of tables).
  void draw_rectangle(const Box& box);

  std::int64_t width() const { return width_; }
  std::int64_t height() const { return height_; }
  /// Coverage of row y; valid until the next draw().
  const std::uint8_t* row(std::int64_t y) const;

 private:
  struct Surface;
  std::unique_ptr<Surface> surface_;
  std::int64_t width_, height_;
};

}  // namespace lectern
