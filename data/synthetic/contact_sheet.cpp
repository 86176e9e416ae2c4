#include "data/synthetic/contact_sheet.h"

#include "core/error.h"
#include "data/synthetic/image_effects.h"

#include <algorithm>
#include <sstream>

namespace lectern {
namespace {

constexpr std::int64_t kGap = 6, kCaptionSize = 11, kCaptionLine = 14, kMostLines = 8;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    if (static_cast<std::int64_t>(out.size()) == kMostLines) return out;
    out.push_back(line);
  }
  return out;
}

void lay(Image& sheet, const Image& picture, std::int64_t left, std::int64_t top,
         std::int64_t zoom) {
  for (std::int64_t y = 0; y < picture.height * zoom; ++y)
    for (std::int64_t x = 0; x < picture.width * zoom; ++x)
      for (int c = 0; c < 3; ++c)
        sheet.row(top + y)[3 * (left + x) + c] = picture.row(y / zoom)[3 * (x / zoom) + c];
}

Image caption(const ContactEntry& entry, std::int64_t width, std::int64_t height) {
  Canvas canvas(width, height);
  double baseline = kCaptionSize;
  for (const std::string& line : lines_of(entry.caption)) {
    const LineOutline outline(entry.face, line);
    const double em = std::min<double>(
        kCaptionSize, static_cast<double>(width) / std::max(outline.advance(), 1e-3));
    canvas.draw(outline, {em, 0, 0, em, 0, baseline});
    baseline += kCaptionLine;
  }
  return colour(coverage_of(canvas), {160, 0, 0}, {225, 230, 240});
}

}  // namespace

Image contact_sheet(const std::vector<ContactEntry>& entries, std::int64_t columns,
                    std::int64_t zoom) {
  if (columns < 1 || zoom < 1)
    fail<ConfigError>(
        fmt::format("contact sheet: columns and zoom must be >= 1, got {} and {}", columns, zoom));
  std::int64_t width = 1, height = 1, lines = 1;
  for (const ContactEntry& entry : entries) {
    width = std::max(width, entry.picture.width * zoom);
    height = std::max(height, entry.picture.height * zoom);
    lines = std::max(lines, static_cast<std::int64_t>(lines_of(entry.caption).size()));
  }
  const std::int64_t below = lines * kCaptionLine + 2;
  const auto count = static_cast<std::int64_t>(entries.size());
  const std::int64_t rows = std::max<std::int64_t>((count + columns - 1) / columns, 1);
  Image sheet = make_image(columns * (width + kGap) + kGap, rows * (height + below + kGap) + kGap);
  for (std::size_t i = 0; i < sheet.pixels.size(); i += 3) {
    sheet.pixels[i] = 225;
    sheet.pixels[i + 1] = 230;
    sheet.pixels[i + 2] = 240;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const ContactEntry& entry = entries[static_cast<std::size_t>(i)];
    const std::int64_t left = kGap + i % columns * (width + kGap);
    const std::int64_t top = kGap + i / columns * (height + below + kGap);
    lay(sheet, entry.picture, left, top, zoom);
    lay(sheet, caption(entry, width, below), left, top + entry.picture.height * zoom, 1);
  }
  return sheet;
}

}  // namespace lectern
