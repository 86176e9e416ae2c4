#include "data/pages/page.h"

#include "core/error.h"
#include "core/io/file.h"
#include "core/io/files.h"
#include "data/text/utf8.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace lectern {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxPageBytes = std::size_t{64} << 20;
constexpr int kPageVersion = 1;

/// Hundredths of a pixel are enough, and keep the files half as long.
double rounded(double value) { return std::round(value * 100.0) / 100.0; }

json to_json(const Box& box) {
  return json::array(
      {rounded(box.left), rounded(box.top), rounded(box.right), rounded(box.bottom)});
}

json to_json(const std::vector<Word>& words) {
  json out = json::array();
  for (const Word& word : words) out.push_back({{"text", word.text}, {"box", to_json(word.box)}});
  return out;
}

Box union_of(const std::vector<Word>& words) {
  Box box = words.front().box;
  for (const Word& word : words) {
    box.left = std::min(box.left, word.box.left);
    box.top = std::min(box.top, word.box.top);
    box.right = std::max(box.right, word.box.right);
    box.bottom = std::max(box.bottom, word.box.bottom);
  }
  return box;
}

std::string join(const std::vector<Word>& words) {
  std::string out;
  for (const Word& word : words) {
    if (!out.empty()) out += ' ';
    out += word.text;
  }
  return out;
}

void keep_inside(std::vector<Word>& words, double width, double height) {
  for (Word& word : words) {
    Box& box = word.box;
    box = {std::clamp(box.left, 0.0, width), std::clamp(box.top, 0.0, height),
           std::clamp(box.right, 0.0, width), std::clamp(box.bottom, 0.0, height)};
  }
  std::erase_if(words, [](const Word& word) {
    return !(word.box.right > word.box.left && word.box.bottom > word.box.top);
  });
}

/// Reads one page's JSON; every complaint names the file and the field.
class PageReader {
 public:
  explicit PageReader(const std::filesystem::path& path)
      : path_(path), root_(parse_json(read_file(path, kMaxPageBytes), path.string())) {
    if (!root_.is_object()) refuse("page", "must be an object", root_);
  }

  Page read() {
    if (const json& format = field(root_, "format"); format != "lectern-page")
      refuse("format", "must be \"lectern-page\"", format);
    if (const json& version = field(root_, "version"); version != kPageVersion)
      refuse("version", fmt::format("must be {}", kPageVersion), version);
    Page page;
    page.source = text(root_, "source");
    page.document = text(root_, "document");
    page.number = integer(root_, "number", 1, std::int64_t{1} << 31);
    page.width = integer(root_, "width", 1, 1 << 20);
    page.height = integer(root_, "height", 1, 1 << 20);
    const json& dots = field(root_, "dots_per_inch");
    if (!dots.is_number() || !(dots.get<double>() >= 0) || dots.get<double>() > 1e5)
      refuse("dots_per_inch", "must be a number in 0..100000", dots);
    page.dots_per_inch = dots.get<double>();
    const std::string image = text(root_, "image");
    if (image.empty() || image == ".." || image.find('/') != std::string::npos)
      refuse("image", "must be the name of a file beside the page", image);
    page.image = path_.parent_path() / image;
    page.text = text(root_, "text");
    width_ = static_cast<double>(page.width);
    height_ = static_cast<double>(page.height);
    for (const json& item : array(root_, "lines")) page.lines.push_back(line(item));
    if (root_.contains("rotated_words")) page.rotated_words = words(root_, "rotated_words");
    if (page.text != text_of_lines(page.lines))
      refuse("text", "must be the lines' text", utf8_prefix(page.text, 60));
    return page;
  }

 private:
  [[noreturn]] void refuse(const std::string& name, const std::string& rule,
                           const json& got) const {
    std::string shown = got.dump(-1, ' ', false, json::error_handler_t::replace);
    if (shown.size() > 80) shown = std::string(utf8_prefix(shown, 80)) + "...";
    fail<IoError>(fmt::format("{}: {} {}, got {}", path_.string(), name, rule, shown));
  }
  const json& field(const json& object, const std::string& name) const {
    if (!object.is_object()) refuse(name, "must be in an object", object);
    const auto found = object.find(name);
    if (found == object.end())
      fail<IoError>(fmt::format("{}: {} is missing", path_.string(), name));
    return *found;
  }
  std::string text(const json& object, const std::string& name) const {
    const json& value = field(object, name);
    if (!value.is_string()) refuse(name, "must be a string", value);
    return value.get<std::string>();
  }
  std::int64_t integer(const json& object, const std::string& name, std::int64_t least,
                       std::int64_t most) const {
    const json& value = field(object, name);
    if (!value.is_number_integer() || value < least || value > most)
      refuse(name, fmt::format("must be an integer in {}..{}", least, most), value);
    return value.get<std::int64_t>();
  }
  const json& array(const json& object, const std::string& name) const {
    const json& value = field(object, name);
    if (!value.is_array()) refuse(name, "must be an array", value);
    return value;
  }
  Box box(const json& object) const {
    const json& value = field(object, "box");
    const bool numbers =
        value.is_array() && value.size() == 4 &&
        std::all_of(value.begin(), value.end(), [](const json& side) { return side.is_number(); });
    if (!numbers) refuse("box", "must be 4 numbers", value);
    const Box box{value[0], value[1], value[2], value[3]};
    if (!(0 <= box.left && box.left <= box.right && box.right <= width_ && 0 <= box.top &&
          box.top <= box.bottom && box.bottom <= height_))
      refuse("box",
             fmt::format("must be left, top, right, bottom inside {:g} x {:g}", width_, height_),
             value);
    return box;
  }
  std::vector<Word> words(const json& object, const std::string& name) const {
    std::vector<Word> out;
    for (const json& item : array(object, name)) out.push_back({text(item, "text"), box(item)});
    return out;
  }
  Line line(const json& item) const {
    Line out;
    out.text = text(item, "text");
    out.box = box(item);
    out.words = words(item, "words");
    out.block = integer(item, "block", 0, std::int64_t{1} << 31);
    if (out.text != join(out.words)) refuse("line", "must be its words with spaces", out.text);
    return out;
  }

  std::filesystem::path path_;
  json root_;
  double width_ = 0, height_ = 0;
};

}  // namespace

std::string text_of_lines(const std::vector<Line>& lines) {
  std::string out;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += lines[i].block == lines[i - 1].block ? "\n" : "\n\n";
    out += lines[i].text;
  }
  return out;
}

void fit_to_image(Page& page, std::int64_t width, std::int64_t height) {
  page.width = width;
  page.height = height;
  const double right = static_cast<double>(width), bottom = static_cast<double>(height);
  for (Line& line : page.lines) keep_inside(line.words, right, bottom);
  keep_inside(page.rotated_words, right, bottom);
  std::erase_if(page.lines, [](const Line& line) { return line.words.empty(); });
  std::int64_t block = -1, previous = -1;
  for (Line& line : page.lines) {
    if (line.block != previous || block < 0) ++block;
    previous = line.block;
    line.block = block;
    line.box = union_of(line.words);
    line.text = join(line.words);
  }
  page.text = text_of_lines(page.lines);
}

void write_page(const Page& page, const std::filesystem::path& path) {
  if (page.image.has_parent_path() && page.image.parent_path() != path.parent_path())
    fail<IoError>(fmt::format("{}: image must be in the same folder, got {}", path.string(),
                              page.image.string()));
  json lines = json::array();
  for (const Line& line : page.lines)
    lines.push_back({{"text", line.text},
                     {"block", line.block},
                     {"box", to_json(line.box)},
                     {"words", to_json(line.words)}});
  const json root = {{"format", "lectern-page"},
                     {"version", kPageVersion},
                     {"source", page.source},
                     {"document", page.document},
                     {"number", page.number},
                     {"width", page.width},
                     {"height", page.height},
                     {"dots_per_inch", page.dots_per_inch},
                     {"image", page.image.filename().string()},
                     {"text", page.text},
                     {"lines", std::move(lines)},
                     {"rotated_words", to_json(page.rotated_words)}};
  std::string written;
  try {
    written = root.dump();
  } catch (const json::exception& error) {
    fail<IoError>(fmt::format("{}: text must be UTF-8: {}", path.string(), error.what()));
  }
  replace_file(std::filesystem::path(path).replace_extension(".txt"), page.text + "\n");
  replace_file(path, written + "\n");
}

Page load_page(const std::filesystem::path& path) { return PageReader(path).read(); }

}  // namespace lectern
