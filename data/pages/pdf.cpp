#include "data/pages/pdf.h"

#include "core/error.h"
#include "core/io/process.h"
#include "data/pages/pdf_text.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string_view>

namespace lectern {
namespace {

ProcessLimits process_limits(const PdfLimits& limits, std::int64_t pages,
                             std::uint64_t output_bytes) {
  ProcessLimits out;
  out.seconds = limits.seconds + limits.seconds_per_page * static_cast<double>(pages);
  out.memory_bytes = limits.memory_bytes;
  out.output_bytes = output_bytes;
  return out;
}

/// An absolute path cannot be taken for an option.
std::string argument(const std::filesystem::path& path) {
  return std::filesystem::absolute(path).string();
}

void check_range(const std::filesystem::path& path, std::int64_t first, std::int64_t last,
                 double dots_per_inch) {
  if (first < 1 || last < first)
    fail<IoError>(fmt::format("{}: pages must be 1 <= first <= last, got {} to {}", path.string(),
                              first, last));
  if (!(dots_per_inch >= 1 && dots_per_inch <= 2400))
    fail<IoError>(fmt::format("{}: dots per inch must be in 1..2400, got {:g}", path.string(),
                              dots_per_inch));
}

/// The number after "key" at the start of a line.
std::int64_t number_after(std::string_view text, std::string_view key) {
  for (std::size_t at = 0; at < text.size();) {
    const std::string_view line = text.substr(at, text.find('\n', at) - at);
    at += line.size() + 1;
    if (!line.starts_with(key)) continue;
    const std::size_t digit = line.find_first_of("0123456789");
    std::int64_t value = 0;
    if (digit != std::string_view::npos)
      std::from_chars(line.data() + digit, line.data() + line.size(), value);
    return value;
  }
  return 0;
}

/// Takes one binary PPM (P6, 255 levels) off the front of `data`.
Image take_ppm(std::string_view& data, const PdfLimits& limits, const std::string& name) {
  const auto refuse = [&](const std::string& what) {
    fail<IoError>(fmt::format("{}: pdftoppm's picture {}", name, what));
  };
  std::int64_t numbers[3] = {};
  if (!data.starts_with("P6")) refuse("must be a P6 file");
  data.remove_prefix(2);
  for (std::int64_t& number : numbers) {
    while (!data.empty() && (data[0] == ' ' || data[0] == '\n')) data.remove_prefix(1);
    const auto [end, error] = std::from_chars(data.data(), data.data() + data.size(), number);
    if (error != std::errc()) refuse("has a bad header");
    data.remove_prefix(static_cast<std::size_t>(end - data.data()));
  }
  const auto [width, height, levels] = numbers;
  if (levels != 255 || width <= 0 || height <= 0 || data.empty()) refuse("has a bad header");
  if (width > limits.max_pixels / height)
    refuse(
        fmt::format("must have at most {} pixels, got {} x {}", limits.max_pixels, width, height));
  data.remove_prefix(1);
  const std::size_t bytes = static_cast<std::size_t>(width * height * 3);
  if (data.size() < bytes) refuse("is cut off");
  Image image{width, height, {}};
  const auto* pixels = reinterpret_cast<const std::uint8_t*>(data.data());
  image.pixels.assign(pixels, pixels + bytes);
  data.remove_prefix(bytes);
  return image;
}

}  // namespace

std::string poppler_version() {
  const std::string said = run_process({"pdftotext", "-v"}, "pdftotext -v").errors;
  const std::size_t begin = said.find_first_of("0123456789");
  if (!said.starts_with("pdftotext version") || begin == std::string::npos)
    fail<IoError>("pdftotext: must be poppler's, and tell its version with -v");
  return said.substr(begin, said.find_first_not_of("0123456789.", begin) - begin);
}

std::int64_t pdf_page_count(const std::filesystem::path& path, const PdfLimits& limits) {
  const ProcessResult result = run_process_or_fail({"pdfinfo", argument(path)}, path.string(),
                                                   process_limits(limits, 0, 16 << 20));
  const std::int64_t pages = number_after(result.output, "Pages:");
  if (pages < 1) fail<IoError>(fmt::format("{}: PDF must have at least one page", path.string()));
  return pages;
}

std::vector<Image> render_pdf_pages(const std::filesystem::path& path, std::int64_t first,
                                    std::int64_t last, double dots_per_inch,
                                    const PdfLimits& limits) {
  check_range(path, first, last, dots_per_inch);
  const std::int64_t count = last - first + 1;
  // Raw pixels through the pipe: poppler's own PNG writer takes ten times as long as its rendering.
  const std::uint64_t most = static_cast<std::uint64_t>(limits.max_pixels) * 3 + 64;
  const ProcessResult result = run_process_or_fail(
      {"pdftoppm", "-cropbox", "-r", fmt::format("{}", dots_per_inch), "-f", std::to_string(first),
       "-l", std::to_string(last), argument(path)},
      path.string(),
      process_limits(
          limits, count,
          std::min<std::uint64_t>(most * count, std::max(most, std::uint64_t{1} << 29))));
  std::vector<Image> images;
  std::string_view rest = result.output;
  while (!rest.empty()) images.push_back(take_ppm(rest, limits, path.string()));
  if (static_cast<std::int64_t>(images.size()) != count)
    fail<IoError>(fmt::format("{}: pdftoppm gave {} pictures for pages {} to {}", path.string(),
                              images.size(), first, last));
  return images;
}

std::vector<Page> read_pdf_text(const std::filesystem::path& path, std::int64_t first,
                                std::int64_t last, double dots_per_inch, const PdfLimits& limits) {
  check_range(path, first, last, dots_per_inch);
  const std::int64_t count = last - first + 1;
  const ProcessResult result =
      run_process_or_fail({"pdftotext", "-bbox-layout", "-cropbox", "-enc", "UTF-8", "-f",
                           std::to_string(first), "-l", std::to_string(last), argument(path), "-"},
                          path.string(), process_limits(limits, count, 256 << 20));
  std::vector<Page> pages = parse_bbox_layout(result.output, dots_per_inch, path.string());
  if (static_cast<std::int64_t>(pages.size()) != count)
    fail<IoError>(fmt::format("{}: pdftotext gave {} pages for pages {} to {}", path.string(),
                              pages.size(), first, last));
  for (std::int64_t i = 0; i < count; ++i) pages[i].number = first + i;
  return pages;
}

}  // namespace lectern
