#include "data/pages/pdf.h"

#include "core/error.h"
#include "core/io/process.h"
#include "data/pages/batch.h"
#include "data/pages/pdf_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

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

/// What follows `key` in the last line that begins with it: poppler prints what the document says
/// of itself first.
std::string_view after_last(std::string_view text, const std::string& key) {
  std::size_t at = text.rfind("\n" + key);
  if (at != std::string_view::npos)
    ++at;
  else if (text.starts_with(key))
    at = 0;
  else
    return {};
  const std::string_view line = text.substr(at, text.find('\n', at) - at);
  return line.substr(key.size());
}

/// The number that `text` begins with, after spaces; 0 when there is none. Takes it off.
double take_number(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !std::isfinite(value)) return 0;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

/// pdfinfo's answer. Titles and the like may hold line breaks and imitate any field; in the
/// encoding of a font of ornaments they come out as spaces.
ProcessResult ask_pdfinfo(const std::filesystem::path& path, const PdfLimits& limits,
                          const std::vector<std::string>& range, std::int64_t pages) {
  std::vector<std::string> argv = {"pdfinfo", "-enc", "ZapfDingbats"};
  argv.insert(argv.end(), range.begin(), range.end());
  argv.push_back(argument(path));
  try {
    return run_process_or_fail(argv, path.string(), process_limits(limits, pages, 16 << 20));
  } catch (const IoError& error) {
    if (std::string_view(error.what()).find("Incorrect password") == std::string_view::npos) throw;
    fail<IoError>(fmt::format(
        "{}: PDF must not need a password; pdfinfo says it is encrypted with one", path.string()));
  }
}

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.find_first_not_of(" \r") != std::string_view::npos) out.emplace_back(line);
  }
  return out;
}

/// The worst of what poppler said, and how much more there was.
std::string note_of(const std::vector<std::string>& said) {
  if (said.empty()) return "";
  const auto worst = std::find_if(said.begin(), said.end(), [](const std::string& line) {
    return line.find("Error") != std::string::npos;
  });
  std::string note = worst == said.end() ? said.front() : *worst;
  constexpr std::size_t kLongest = 200;
  if (note.size() > kLongest) note = note.substr(0, kLongest) + "...";
  if (said.size() > 1) note += fmt::format(" (and {} more)", said.size() - 1);
  return note;
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

/// Draws the pages of one document.
class PageDrawing {
 public:
  PageDrawing(const std::filesystem::path& path, double dots_per_inch, const PdfLimits& limits)
      : path_(path), dots_per_inch_(dots_per_inch), limits_(limits) {}

  std::vector<PdfPicture> draw(std::int64_t first, std::int64_t last) {
    measure(first, last);
    for (std::size_t begin = 0; begin < pages_.size();) {
      std::size_t end = begin;
      while (end < pages_.size() && pages_[end].picture.error.empty()) ++end;
      if (end > begin) draw_run(begin, end);
      begin = end + 1;
    }
    std::vector<PdfPicture> out;
    for (Sheet& page : pages_) out.push_back(std::move(page.picture));
    return out;
  }

 private:
  struct Sheet {
    std::int64_t width = 0, height = 0;  // of its picture, as poppler will draw it
    PdfPicture picture;

    bool is_like(const Image& image) const {
      const auto near = [](std::int64_t a, std::int64_t b) { return std::abs(a - b) <= 1; };
      return near(image.width, width) && near(image.height, height);
    }
  };

  /// Known before anything is drawn: a hostile page would fill the memory first, and in the place
  /// of a page that is not there poppler draws the one before it again.
  void measure(std::int64_t first, std::int64_t last) {
    const std::string facts =
        ask_pdfinfo(path_, limits_, {"-f", std::to_string(first), "-l", std::to_string(last)},
                    last - first + 1)
            .output;
    std::int64_t total = 0;
    for (std::int64_t number = first; number <= last; ++number) {
      Sheet page = sheet(facts, number);
      if (page.picture.error.empty()) {
        total += page.width * page.height;
        if (total > limits_.max_pixels_at_once && number > first) return;
      }
      pages_.push_back(std::move(page));
    }
  }

  Sheet sheet(const std::string& facts, std::int64_t number) const {
    Sheet page;
    page.picture.number = number;
    std::string_view size = after_last(facts, fmt::format("Page {:4} size:", number));
    const double width = take_number(size);
    size.remove_prefix(std::min(size.find_first_of("0123456789"), size.size()));
    const double height = take_number(size);
    if (!(width > 0 && height > 0)) {
      page.picture.error = "poppler cannot find this page in the file";
      return page;
    }
    page.width = pixels(width);
    page.height = pixels(height);
    std::string_view turned = after_last(facts, fmt::format("Page {:4} rot:", number));
    if (std::fmod(take_number(turned), 180) != 0) std::swap(page.width, page.height);
    if (page.width > limits_.max_pixels / page.height)
      page.picture.error =
          fmt::format("too large: {} x {} pixels at {:g} dots per inch, at most {} pixels",
                      page.width, page.height, dots_per_inch_, limits_.max_pixels);
    return page;
  }

  std::int64_t pixels(double points) const {
    constexpr double kPointsOfAnInch = 72;
    const double wide = std::ceil(points * dots_per_inch_ / kPointsOfAnInch);
    return static_cast<std::int64_t>(std::clamp(wide, 1.0, 1e9));
  }

  /// Pages that fail together are tried one by one: a bad page must not cost its neighbours.
  void draw_run(std::size_t begin, std::size_t end) {
    try {
      if (draw_together(begin, end)) return;
    } catch (const IoError& error) {
      if (end - begin == 1) {
        pages_[begin].picture.error = detail::short_reason(error, path_);
        return;
      }
    }
    for (std::size_t i = begin; i < end; ++i) draw_run(i, i + 1);
  }

  /// False when the answer cannot be told apart page by page.
  bool draw_together(std::size_t begin, std::size_t end) {
    const auto count = static_cast<std::int64_t>(end - begin);
    std::uint64_t bytes = 0;
    for (std::size_t i = begin; i < end; ++i)
      bytes += static_cast<std::uint64_t>(pages_[i].width + 2) * (pages_[i].height + 2) * 3 + 64;
    // Raw pixels through the pipe: poppler's own PNG writer takes ten times as long as its
    // rendering.
    const ProcessResult result = run_process_or_fail(
        {"pdftoppm", "-cropbox", "-progress", "-r", fmt::format("{}", dots_per_inch_), "-f",
         std::to_string(pages_[begin].picture.number), "-l",
         std::to_string(pages_[end - 1].picture.number), argument(path_)},
        path_.string(), process_limits(limits_, count, bytes));
    std::vector<Image> images;
    std::string_view rest = result.output;
    while (!rest.empty()) images.push_back(take_ppm(rest, limits_, path_.string()));
    bool as_expected = images.size() == end - begin;
    for (std::size_t i = begin; i < end && as_expected; ++i)
      as_expected = pages_[i].is_like(images[i - begin]);
    std::map<std::int64_t, std::vector<std::string>> said;
    const bool all_heard = listen(result.errors, pages_[end - 1].picture.number, said);
    if (count > 1 && !(as_expected && all_heard)) return false;
    if (!as_expected)
      fail<IoError>(fmt::format(
          "{}: pdftoppm gave {} pictures for page {}, {} x {} pixels, not {} x {}", path_.string(),
          images.size(), pages_[begin].picture.number, images.empty() ? 0 : images[0].width,
          images.empty() ? 0 : images[0].height, pages_[begin].width, pages_[begin].height));
    for (std::size_t i = begin; i < end; ++i) {
      PdfPicture& picture = pages_[i].picture;
      picture.image = std::move(images[i - begin]);
      picture.note = note_of(said[picture.number]);
    }
    return true;
  }

  /// Sorts poppler's complaints by page: with -progress it writes "<page> <last> <file>" after
  /// each, and no complaint of its own begins with a digit. What comes after those lines, or was
  /// said when they could no longer be kept, is of page `last`. False when some were cut off.
  bool listen(const std::string& errors, std::int64_t last,
              std::map<std::int64_t, std::vector<std::string>>& said) {
    std::vector<std::string> before;
    for (std::string& line : lines_of(errors)) {
      if (line[0] < '0' || line[0] > '9') {
        before.push_back(std::move(line));
        continue;
      }
      std::string_view page = line;
      said[static_cast<std::int64_t>(take_number(page))] = std::exchange(before, {});
    }
    std::move(before.begin(), before.end(), std::back_inserter(said[last]));
    for (auto& [page, lines] : said) {
      if (lines.empty()) continue;
      if (!of_file_) of_file_ = lines_of(ask_pdfinfo(path_, limits_, {}, 0).errors);
      std::erase_if(lines, [&](const std::string& line) {
        return std::find(of_file_->begin(), of_file_->end(), line) != of_file_->end();
      });
    }
    return errors.size() < kMostErrors;
  }

  static constexpr std::size_t kMostErrors = std::size_t{64} << 10;  // what a process may say

  const std::filesystem::path& path_;
  double dots_per_inch_;
  const PdfLimits& limits_;
  std::vector<Sheet> pages_;
  std::optional<std::vector<std::string>> of_file_;  // complaints that opening it gives
};

}  // namespace

std::string poppler_version() {
  const std::string said = run_process({"pdftotext", "-v"}, "pdftotext -v").errors;
  const std::size_t begin = said.find_first_of("0123456789");
  if (!said.starts_with("pdftotext version") || begin == std::string::npos)
    fail<IoError>("pdftotext: must be poppler's, and tell its version with -v");
  return said.substr(begin, said.find_first_not_of("0123456789.", begin) - begin);
}

PdfInfo read_pdf_info(const std::filesystem::path& path, const PdfLimits& limits) {
  const ProcessResult result = ask_pdfinfo(path, limits, {}, 0);
  std::string_view pages = after_last(result.output, "Pages:");
  const double count = take_number(pages);
  if (!(count >= 1 && count < 1e9))
    fail<IoError>(fmt::format("{}: PDF must have at least one page", path.string()));
  return {static_cast<std::int64_t>(count), note_of(lines_of(result.errors))};
}

std::vector<PdfPicture> render_pdf_pages(const std::filesystem::path& path, std::int64_t first,
                                         std::int64_t last, double dots_per_inch,
                                         const PdfLimits& limits) {
  check_range(path, first, last, dots_per_inch);
  return PageDrawing(path, dots_per_inch, limits).draw(first, last);
}

std::vector<Page> read_pdf_text(const std::filesystem::path& path, std::int64_t first,
                                std::int64_t last, double dots_per_inch, const PdfLimits& limits,
                                std::string* note) {
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
  if (note != nullptr) *note = note_of(lines_of(result.errors));
  return pages;
}

}  // namespace lectern
