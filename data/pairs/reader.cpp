#include "data/pairs/reader.h"

#include "core/io/file.h"
#include "data/images/file_kind.h"
#include "data/pairs/folder_reader.h"
#include "data/pairs/forms.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <fstream>
#include <optional>
#include <utility>

namespace lectern::detail {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kMostRecordBytes = std::size_t{1} << 26;

/// Bytes of a file with the number of their line.
class Bytes {
 public:
  explicit Bytes(const fs::path& path) : path_(path), in_(path, std::ios::binary) {
    if (!in_) fail<IoError>(fmt::format("{}: cannot be opened", path.string()));
    constexpr std::string_view kMark = "\xef\xbb\xbf";
    std::string head(kMark.size(), '\0');
    in_.read(head.data(), static_cast<std::streamsize>(head.size()));
    in_.clear();
    if (head != kMark) in_.seekg(0);
  }

  int peek() { return in_.peek(); }
  /// The next byte, or EOF.
  int get() {
    const int byte = in_.get();
    if (byte == '\n') ++line_;
    if (byte == EOF && in_.bad())
      fail<IoError>(fmt::format("{}: cannot be read in line {}", path_.string(), line_));
    return byte;
  }
  int skip_blanks() {
    int byte = peek();
    for (; byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n'; byte = peek()) get();
    return byte;
  }
  std::int64_t line() const { return line_; }

 private:
  fs::path path_;
  std::ifstream in_;
  std::int64_t line_ = 1;
};

/// Where in a text of JSON its first fault is: "line 3, column 7: syntax error ...".
std::string fault_of(std::string_view text, std::int64_t first_line, bool many_lines) {
  try {
    [[maybe_unused]] const json whole = json::parse(text.begin(), text.end());
    return "cannot be read";  // nested too deep: said by parse_json()
  } catch (const json::parse_error& error) {
    const std::size_t byte = std::clamp<std::size_t>(error.byte, 1, text.size() + 1);
    const std::string_view before = text.substr(0, byte - 1);
    const auto lines = std::count(before.begin(), before.end(), '\n');
    const std::size_t line_start = lines == 0 ? 0 : before.rfind('\n') + 1;
    std::string what = error.what();
    constexpr std::string_view kColumn = "column ";
    if (const auto at = what.find(": ", what.find(kColumn)); at != std::string::npos)
      what.erase(0, at + 2);
    const std::string place = fmt::format("column {}: {}", byte - line_start, what);
    return many_lines ? fmt::format("line {}, {}", first_line + lines, place) : place;
  }
}

void parse_item(const std::string& text, bool many_lines, const FormOptions& options,
                PairItem& item) {
  json record;
  try {
    record = parse_json(text, "record");
  } catch (const IoError& error) {
    const std::string_view what = error.what();
    const bool is_deep = what.find("nest") != std::string_view::npos;
    item.unusable = {"broken JSON", is_deep ? std::string("must nest at most 64 deep")
                                            : fault_of(text, item.line, many_lines)};
    return;
  }
  read_form(record, options, item);
}

/// The picture beside the file that names it.
void place_picture(const fs::path& folder, PairItem& item) {
  if (!item.name.empty()) item.picture = folder / item.name;
}

class JsonLines final : public ItemReader {
 public:
  JsonLines(const fs::path& path, const FormOptions& options)
      : folder_(path.parent_path()), options_(options), bytes_(path) {}

  std::string describe() const override { return "JSON lines"; }

  bool next(PairItem& item) override {
    for (;;) {
      item = {};
      item.line = bytes_.line();
      if (bytes_.peek() == EOF) return false;
      std::string text;
      bool is_long = false;
      for (int byte = bytes_.get(); byte != EOF && byte != '\n'; byte = bytes_.get()) {
        is_long = is_long || text.size() == kMostRecordBytes;
        if (!is_long) text += static_cast<char>(byte);
      }
      if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
      if (is_long)
        item.unusable = {"form", fmt::format("must have at most {} bytes", kMostRecordBytes)};
      else
        parse_item(text, false, options_, item);
      place_picture(folder_, item);
      return true;
    }
  }

 private:
  fs::path folder_;
  FormOptions options_;
  Bytes bytes_;
};

/// A list of records, an element at a time: what is between two commas outside of all brackets.
class JsonList final : public ItemReader {
 public:
  JsonList(const fs::path& path, const FormOptions& options)
      : folder_(path.parent_path()), options_(options), bytes_(path) {
    bytes_.skip_blanks();
    bytes_.get();  // [
  }

  std::string describe() const override { return "a JSON list"; }

  bool next(PairItem& item) override {
    item = {};
    if (is_done_) return false;
    const int first = bytes_.skip_blanks();
    item.line = bytes_.line();
    if (first == ']' && is_start_) return is_done_ = true, false;
    is_start_ = false;
    bool is_long = false;
    std::string text;
    const int end = read_element(text, is_long);
    is_done_ = end != ',';
    if (end == EOF)
      item.unusable = {"broken JSON", fmt::format("line {}: the list must end with ], got the end "
                                                  "of the file",
                                                  bytes_.line())};
    else if (is_long)
      item.unusable = {"form", fmt::format("must have at most {} bytes", kMostRecordBytes)};
    else
      parse_item(text, true, options_, item);
    place_picture(folder_, item);
    return true;
  }

 private:
  /// Gives the byte that ended the element: a comma, the list's bracket, or EOF.
  int read_element(std::string& text, bool& is_long) {
    int depth = 0;
    bool is_text = false;
    for (int byte = bytes_.get();; byte = bytes_.get()) {
      if (byte == EOF) return EOF;
      if (!is_text && depth == 0 && (byte == ',' || byte == ']')) return byte;
      is_long = is_long || text.size() >= kMostRecordBytes;
      if (!is_long) text += static_cast<char>(byte);
      if (byte == '"') is_text = !is_text;
      if (is_text && byte == '\\') {
        const int escaped = bytes_.get();
        if (escaped == EOF) return EOF;
        if (!is_long) text += static_cast<char>(escaped);
      }
      if (is_text) continue;
      if (byte == '{' || byte == '[') ++depth;
      if ((byte == '}' || byte == ']') && depth > 0) --depth;
    }
  }

  fs::path folder_;
  FormOptions options_;
  Bytes bytes_;
  bool is_start_ = true, is_done_ = false;
};

}  // namespace

std::unique_ptr<ItemReader> open_input(const fs::path& path, const FormOptions& options) {
  std::error_code error;
  if (fs::is_directory(path, error)) return open_folder(path, options);
  if (!fs::is_regular_file(path, error))
    fail<IoError>(fmt::format("{}: must be a JSON file or a folder of pictures and texts, got {}",
                              path.string(), error ? "nothing" : "something else"));
  const int first = Bytes(path).skip_blanks();
  if (first == '[') return std::make_unique<JsonList>(path, options);
  if (first == EOF) fail<IoError>(fmt::format("{}: must have records, got none", path.string()));
  std::string head(kFileKindBytes, '\0');
  std::ifstream in(path, std::ios::binary);
  in.read(head.data(), static_cast<std::streamsize>(head.size()));
  const std::span<const std::uint8_t> bytes(reinterpret_cast<const std::uint8_t*>(head.data()),
                                            static_cast<std::size_t>(in.gcount()));
  const std::string kind = describe_file_kind(bytes);
  if (first != '{' && kind != "text")
    fail<IoError>(
        fmt::format("{}: must be JSON lines, a JSON list or a folder of pictures and "
                    "texts, got {}",
                    path.string(), kind));
  return std::make_unique<JsonLines>(path, options);
}

}  // namespace lectern::detail
