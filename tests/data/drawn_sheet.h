// Pages of real letters whose lines and words are known, for tests of finding them.
#pragma once

#include "data/pages/page.h"
#include "data/synthetic/image_effects.h"
#include "data/synthetic/text_painter.h"

#include <cmath>
#include <memory>
#include <numbers>
#include <sstream>
#include <string>
#include <vector>

namespace lectern::testing {

/// Draws lines of words at known places; everything is turned about the middle of the page.
class DrawnSheet {
 public:
  DrawnSheet(std::int64_t width, std::int64_t height, double degrees = 0,
             const std::string& family = "DejaVu Serif")
      : canvas_(std::make_shared<Canvas>(width, height)),
        radians_(degrees * std::numbers::pi / 180) {
    for (const FontFace& face : faces_of(family))
      if (!face.bold && !face.italic) face_ = face;
    space_ = LineOutline(face_, "x x").advance() - LineOutline(face_, "xx").advance();
    page.width = width;
    page.height = height;
  }

  /// Words of `text` from x on, their feet on `baseline`, in letters of `em` pixels.
  void line(const std::string& text, double x, double baseline, double em, std::int64_t block) {
    Line out;
    out.text = text;
    out.block = block;
    std::istringstream words(text);
    for (std::string word; words >> word;) {
      const LineOutline outline(face_, word);
      canvas_->draw(outline, placed(x, baseline, em));
      const Box& ink = outline.ink();
      out.words.push_back({word, turned({x + em * ink.left, baseline + em * ink.top,
                                         x + em * ink.right, baseline + em * ink.bottom})});
      x += em * (outline.advance() + space_);
    }
    out.box = out.words.front().box;
    out.box.right = out.words.back().box.right;
    page.lines.push_back(out);
  }
  /// Lines of up to `width` pixels until the words or the rows down to `bottom` are used up; the
  /// last baseline. `next` is the first word that is not set.
  double paragraph(const std::vector<std::string>& words, std::size_t& next, const Box& box,
                   double em, double leading, std::int64_t block) {
    double baseline = box.top + em;
    for (; next < words.size() && baseline < box.bottom; baseline += leading * em) {
      std::string text;
      double used = 0;
      while (next < words.size()) {
        const double length = em * LineOutline(face_, words[next]).advance();
        if (!text.empty() && used + em * space_ + length > box.right - box.left) break;
        used += (text.empty() ? 0 : em * space_) + length;
        text += (text.empty() ? "" : " ") + words[next++];
      }
      line(text, box.left, baseline, em, block);
    }
    return baseline - leading * em;
  }
  void rectangle(const Box& box) { canvas_->draw_rectangle(box); }

  Image image(const Colour& ink = {0, 0, 0}, const Colour& paper = {255, 255, 255}) const {
    return colour(coverage_of(*canvas_), ink, paper);
  }

  Page page;  // lines in the order in which they were drawn

 private:
  Affine placed(double x, double y, double em) const {
    const double c = std::cos(radians_), s = std::sin(radians_);
    const double mx = 0.5 * static_cast<double>(page.width);
    const double my = 0.5 * static_cast<double>(page.height);
    return {c * em,
            s * em,
            -s * em,
            c * em,
            mx + c * (x - mx) - s * (y - my),
            my + s * (x - mx) + c * (y - my)};
  }
  /// A box of the same size around the turned middle.
  Box turned(const Box& box) const {
    const Affine at = placed(0.5 * (box.left + box.right), 0.5 * (box.top + box.bottom), 1);
    const double w = 0.5 * (box.right - box.left), h = 0.5 * (box.bottom - box.top);
    return {at.x0 - w, at.y0 - h, at.x0 + w, at.y0 + h};
  }

  std::shared_ptr<Canvas> canvas_;
  double radians_, space_ = 0;  // of the font, em
  FontFace face_;
};

}  // namespace lectern::testing
