#include "data/pairs/sheet.h"

#include "core/error.h"
#include "data/images/resize.h"
#include "data/shards/grounding.h"
#include "data/shards/shard_set.h"
#include "data/synthetic/contact_sheet.h"
#include "data/text/utf8.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

namespace lectern {
namespace {

using Colour3 = std::array<std::uint8_t, 3>;

/// Boxes take turns, so that neighbours can be told apart.
constexpr Colour3 kBoxColours[] = {{220, 40, 40}, {30, 80, 220}, {20, 140, 60}, {190, 110, 0}};
constexpr std::size_t kPromptLines = 2, kCaptionLines = 8, kMostColumns = 16;

void draw_frame(Image& image, const Box& box, double scale, const Colour3& colour) {
  const auto at = [&](double x, std::int64_t last) {
    return std::clamp<std::int64_t>(std::llround(x * scale), 0, last);
  };
  const std::int64_t left = at(box.left, image.width - 1), right = at(box.right, image.width - 1);
  const std::int64_t top = at(box.top, image.height - 1), bottom = at(box.bottom, image.height - 1);
  const auto set = [&](std::int64_t x, std::int64_t y) {
    std::copy(colour.begin(), colour.end(), image.row(y) + 3 * x);
  };
  for (std::int64_t x = left; x <= right; ++x) {
    set(x, top);
    set(x, bottom);
  }
  for (std::int64_t y = top; y <= bottom; ++y) {
    set(left, y);
    set(right, y);
  }
}

/// The face that has most characters of a text, the first of equals.
class Faces {
 public:
  Faces() {
    for (const char* family : {"DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP",
                               "WenQuanYi Zen Hei", "Liberation Sans", "FreeSans"})
      add(family);
    if (!faces_.empty()) return;
    for (const std::string& family : font_families()) add(family);
    if (faces_.empty()) fail<ConfigError>("contact sheet: the machine has no font");
  }

  /// Also replaces characters that the face lacks.
  FontFace choose(std::string& text) const {
    std::u32string characters = code_points(text);
    const std::vector<char32_t> list(characters.begin(), characters.end());
    std::size_t best = 0;
    std::vector<bool> best_has;
    std::ptrdiff_t most = -1;
    for (std::size_t i = 0; i < faces_.size(); ++i) {
      std::vector<bool> has = coverage_of(faces_[i], list);
      const auto count = std::count(has.begin(), has.end(), true);
      if (count <= most) continue;
      most = count;
      best = i;
      best_has = std::move(has);
    }
    for (std::size_t i = 0; i < characters.size(); ++i)
      if (!best_has[i] && characters[i] != U'\n') characters[i] = U'?';
    text = to_utf8(characters);
    return faces_[best];
  }

 private:
  void add(const std::string& family) {
    for (const FontFace& face : faces_of(family))
      if (!face.bold && !face.italic) return faces_.push_back(face);
  }

  std::vector<FontFace> faces_;
};

/// Lines of at most `width` columns, wide characters counted twice; what does not fit into `lines`
/// ends in "...".
std::string wrapped(const std::string& text, std::size_t width, std::size_t lines) {
  constexpr char32_t kFirstWide = 0x2E80;
  std::vector<std::u32string> out(1);
  std::size_t used = 0;
  bool is_cut = false;
  for (const char32_t character : code_points(text)) {
    const std::size_t columns = character >= kFirstWide ? 2 : 1;
    const bool ends = character == U'\n';
    if (ends || used + columns > width) {
      if (out.size() == lines) {
        is_cut = true;
        break;
      }
      out.emplace_back();
      used = 0;
      if (ends) continue;
    }
    out.back() += character == U'\t' || character == U'\r' ? U' ' : character;
    used += columns;
  }
  if (is_cut) out.back() += U"...";
  std::string joined;
  for (const std::u32string& line : out) joined += (joined.empty() ? "" : "\n") + to_utf8(line);
  return joined;
}

std::string in_one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

/// The box's label in its upper left corner, in its colour, as far as it fits.
void draw_label(Image& image, const LabelledBox& labelled, double scale, const Colour3& colour,
                const Faces& faces) {
  constexpr double kEm = 9;
  constexpr std::int64_t kHeight = 11, kMostWidth = 90;
  const auto left = std::max<std::int64_t>(std::llround(labelled.box.left * scale) + 2, 0);
  const auto top = std::max<std::int64_t>(std::llround(labelled.box.top * scale) + 1, 0);
  const std::int64_t width = std::min(kMostWidth, image.width - left);
  if (width < 1) return;
  std::string text = wrapped(in_one_line(labelled.label), kMostWidth / 6, 1);
  const LineOutline outline(faces.choose(text), text);
  Canvas canvas(width, kHeight);
  canvas.draw(outline, {kEm, 0, 0, kEm, 0, kEm});
  for (std::int64_t y = 0; y < std::min(kHeight, image.height - top); ++y)
    for (std::int64_t x = 0; x < width; ++x)
      for (std::size_t c = 0; c < colour.size(); ++c) {
        std::uint8_t& pixel = image.row(top + y)[3 * (left + x) + static_cast<std::int64_t>(c)];
        const int ink = canvas.row(y)[x];
        pixel = static_cast<std::uint8_t>((pixel * (255 - ink) + colour[c] * ink) / 255);
      }
}

/// The picture as large as fits, on a square of paper.
Image cell_of(const DecodedPage& page, std::int64_t side, const Faces& faces) {
  const std::int64_t width = page.page.width, height = page.page.height;
  const double scale = std::min({static_cast<double>(side) / static_cast<double>(width),
                                 static_cast<double>(side) / static_cast<double>(height), 3.0});
  const auto scaled = [&](std::int64_t n) {
    return std::clamp<std::int64_t>(std::llround(static_cast<double>(n) * scale), 1, side);
  };
  Image small = resize_bicubic(page.crop(0, 0, width, height), scaled(width), scaled(height));
  for (std::size_t i = 0; i < page.page.boxes.size(); ++i) {
    const Colour3& colour = kBoxColours[i % std::size(kBoxColours)];
    draw_frame(small, page.page.boxes[i].box, scale, colour);
    draw_label(small, page.page.boxes[i], scale, colour, faces);
  }
  Image out = make_image(side, side, 245);
  const std::int64_t left = (side - small.width) / 2, top = (side - small.height) / 2;
  for (std::int64_t y = 0; y < small.height; ++y)
    std::copy(small.row(y), small.row(y) + 3 * small.width, out.row(top + y) + 3 * left);
  return out;
}

/// The answer with [label] in place of a place's tags and numbers, which the picture shows.
std::string without_tags(const std::string& answer) {
  std::string out;
  std::size_t at = 0;
  for (std::size_t begin; (begin = answer.find(kGroundingTags[0], at)) != std::string::npos;) {
    const std::size_t label = begin + kGroundingTags[0].size();
    const std::size_t end = answer.find(kGroundingTags[1], label);
    const std::size_t last = answer.find(kGroundingTags[3], label);
    if (end == std::string::npos || last == std::string::npos) break;
    out += fmt::format("{}[{}]", answer.substr(at, begin - at), answer.substr(label, end - label));
    at = last + kGroundingTags[3].size();
  }
  return out + answer.substr(at);
}

std::string caption_of(const ShardPage& page, const PairSheetOptions& options) {
  const auto width = static_cast<std::size_t>(options.side / 6);  // 11 pixels an em
  const bool has_own = page.prompt.empty() && page.has_picture();
  const std::string prompt = has_own ? options.own_prompt + " (the model's)" : page.prompt;
  std::string out =
      wrapped(fmt::format("{}  {}", page.id, page.has_picture() ? "" : "(text)"), width, 1);
  if (!prompt.empty()) out += "\n? " + wrapped(in_one_line(prompt), width - 2, kPromptLines);
  const auto used = static_cast<std::size_t>(std::count(out.begin(), out.end(), '\n')) + 1;
  return out + "\n" + wrapped(without_tags(page.text), width, kCaptionLines - used);
}

}  // namespace

Image pair_sheet(const std::filesystem::path& shards, const PairSheetOptions& options) {
  const ShardSet set(shards, 0);
  const Faces faces;
  std::vector<ContactEntry> entries;
  const std::int64_t count = std::min(options.records, set.pages());
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t at = i * set.pages() / count;
    const bool has_picture = set.size(at)[0] > 0;
    const auto page = has_picture ? set.decoded(at) : set.read(at);
    ContactEntry entry;
    entry.picture = has_picture ? cell_of(*page, options.side, faces)
                                : make_image(options.side, options.side, 245);
    entry.caption = caption_of(page->page, options);
    entry.face = faces.choose(entry.caption);
    entries.push_back(std::move(entry));
  }
  return contact_sheet(entries, std::min<std::int64_t>(options.columns, kMostColumns));
}

}  // namespace lectern
