// Shards: HDF5 files of records. A record is a picture with what there is to read in it: a whole
// page with its text, lines, words and boxes, from which samples are cut when they are loaded
// (data/samples/cut.h), or a picture of somebody's own with a prompt and an answer
// (data/samples/pairs.h); text alone has no picture.
//
// Layout of `shard-00000.h5` (variable-length data are flat arrays with offsets of one more entry):
//   attributes   format "lectern-shard", format_version, tokenizer_sha256, pages, lines, words,
//   boxes /page        id, document, source, text, prompt, kind (u8, UTF-8), picture (u8, PNG or
//   JPEG),
//                ids, prompt_ids (i32), each with <name>_offset (i64); size i32 [pages, 2] width
//                and height; picture_sha256 u8 [pages, 64] in hexadecimal; number i32;
//                dots_per_inch f32; first_line, first_box i64 [pages + 1]
//   /line        text, ids as above; box f32 [lines, 4] left, top, right, bottom in pixels of the
//                picture; block i32 [lines] paragraph of the page; first_word i64 [lines + 1]
//   /word        text, ids, box as above
//   /box         label, box as above: labelled parts of the picture
//
// Format 1 is read as well: it has pages only, their picture is called `png`, and there are no
// prompt, prompt_ids, kind, picture_sha256 and boxes.
#pragma once

#include "data/pages/page.h"

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

inline constexpr std::int64_t kShardVersion = 2;

/// Rows of different lengths: row i is values[offsets[i] .. offsets[i + 1]).
template <typename T>
struct Ragged {
  std::vector<T> values;
  std::vector<std::int64_t> offsets{0};

  std::int64_t size() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
  std::span<const T> operator[](std::int64_t i) const {
    const auto at = static_cast<std::size_t>(i);
    return {values.data() + offsets[at], static_cast<std::size_t>(length(i))};
  }
  std::int64_t length(std::int64_t i) const {
    const auto at = static_cast<std::size_t>(i);
    return offsets[at + 1] - offsets[at];
  }
  template <typename Row>
  void push_back(const Row& row) {
    values.insert(values.end(), row.begin(), row.end());
    offsets.push_back(static_cast<std::int64_t>(values.size()));
  }
};

/// The lines or the words of a page.
struct TextUnits {
  Ragged<std::uint8_t> texts;  // UTF-8
  Ragged<std::int32_t> ids;    // tokens of each text alone
  std::vector<std::array<float, 4>> boxes;

  std::int64_t size() const { return texts.size(); }
  std::string_view text(std::int64_t i) const {
    const auto row = texts[i];
    return {reinterpret_cast<const char*>(row.data()), row.size()};
  }
  Box box(std::int64_t i) const {
    const auto& b = boxes[static_cast<std::size_t>(i)];
    return {b[0], b[1], b[2], b[3]};
  }
  void push_back(std::string_view text, const Box& box, std::span<const std::int32_t> tokens);
};

/// A part of a picture by name: "table", "figure_title", or the text that was asked for.
struct LabelledBox {
  std::string label;
  Box box;  // pixels of the picture

  bool operator==(const LabelledBox& other) const {
    return label == other.label && box.left == other.box.left && box.top == other.box.top &&
           box.right == other.box.right && box.bottom == other.box.bottom;
  }
};

/// One record as a shard stores it.
struct ShardPage {
  std::string id;             // unique in a set of shards: "<document>/<number>"
  std::string document;       // group: splits never separate the records of a document
  std::string source;         // file name of the document
  std::string kind = "page";  // of record: by it samples are reported
  std::int64_t number = 0;
  std::int64_t width = 0, height = 0;  // pixels; 0 x 0: text alone
  double dots_per_inch = 0;
  std::vector<std::uint8_t> picture;     // PNG or JPEG
  std::string picture_sha256;            // hexadecimal; made by the writer, of format 1 by read()
  std::string prompt;                    // "": the reader's own
  std::vector<std::int32_t> prompt_ids;  // tokens of `prompt` without its <image>
  std::string text;                      // whole page, or the answer
  std::vector<std::int32_t> ids;         // tokens of `text`
  TextUnits lines, words;                // in reading order
  std::vector<std::int32_t> blocks;  // [lines]: the paragraph of the page that a line belongs to
  std::vector<std::int64_t> first_word{0};  // [lines + 1]: line i has words first_word[i] ..
  std::vector<LabelledBox> boxes;

  bool has_picture() const { return width > 0; }
};

/// Collects pages in memory and writes them as one file.
class ShardWriter {
 public:
  ShardWriter();
  ~ShardWriter();
  /// Throws ConfigError naming the record and the field: no id, a size without a picture or the
  /// other way round, a box that is empty of label or outside the picture, `<image>` elsewhere than
  /// at the beginning of the prompt of a picture, lines and words that do not belong together.
  void add(const ShardPage& page);
  std::int64_t pages() const;
  std::int64_t lines() const;
  std::int64_t words() const;
  /// Bytes held, about the size of the file.
  std::int64_t bytes() const;
  /// Writes the pages and forgets them. Throws IoError; `path` may then be incomplete.
  void write(const std::filesystem::path& path, const std::string& tokenizer_sha256);

 private:
  struct Columns;
  std::unique_ptr<Columns> columns_;
};

/// What filters and samplers need to know of all lines or words of a shard, without the pixels.
struct UnitTable {
  TextUnits units;                       // `ids.values` is left empty: lengths only
  std::vector<std::int64_t> first_unit;  // [pages + 1]
  std::vector<std::int32_t> blocks;      // of lines
};

/// Reads pages of one file by index. Functions may be called from several threads. Everything is
/// checked before it is used; a fault is an IoError that names file and dataset.
class Shard {
 public:
  explicit Shard(const std::filesystem::path& path);
  ~Shard();

  const std::string& name() const;
  const std::string& tokenizer_sha256() const;
  std::int64_t pages() const;
  std::int64_t lines() const;
  std::int64_t words() const;
  std::int64_t boxes() const;

  /// Bytes of the page's picture and number of tokens of its text; width and height in pixels.
  std::int64_t picture_bytes(std::int64_t page) const;
  std::int64_t token_count(std::int64_t page) const;
  /// Tokens of the record's own prompt; none where it has no prompt.
  std::optional<std::int64_t> prompt_tokens(std::int64_t page) const;
  std::array<std::int64_t, 2> size(std::int64_t page) const;
  /// Identity of a page: id, document, source, kind, number, size, dots_per_inch, picture_sha256;
  /// no content.
  ShardPage describe(std::int64_t page) const;
  /// The whole page; without `picture` when the pixels are not needed.
  ShardPage read(std::int64_t page, bool picture = true) const;

  UnitTable line_table() const;
  UnitTable word_table() const;
  /// First line of each page [pages + 1].
  const std::vector<std::int64_t>& first_line() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lectern
