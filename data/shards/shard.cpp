#include "data/shards/shard.h"

#include "core/error.h"
#include "core/io/files.h"
#include "data/shards/format.h"
#include "data/shards/hdf5_file.h"

#include <algorithm>
#include <cmath>

namespace lectern {
namespace {

using detail::Hdf5Reader;
using detail::kHashBytes;
using detail::kMaxNameBytes;
using detail::kMaxPictureBytes;
using detail::kMaxSide;
using Offsets = std::vector<std::int64_t>;

constexpr std::int64_t kMinPngBytes = 57;  // signature, header, one data chunk, end
constexpr std::int64_t kMaxPageText = std::int64_t{1} << 24;
constexpr std::int64_t kMaxPageUnits = std::int64_t{1} << 20;

/// Opens `name` and checks its number of rows.
void open_table(Hdf5Reader& file, const std::string& name, DType dtype, std::int64_t columns,
                std::int64_t rows) {
  const std::int64_t got = file.open_dataset(name, dtype, columns);
  if (got != rows)
    fail<IoError>(
        fmt::format("{}: dataset {} must have {} rows, got {}", file.name(), name, rows, got));
}

/// offsets[begin .. begin+count], checked to rise within 0 .. limit by at most `longest`.
Offsets read_offsets(const Hdf5Reader& file, const std::string& name, std::int64_t begin,
                     std::int64_t count, std::int64_t limit, std::int64_t longest) {
  Offsets offsets(static_cast<std::size_t>(count) + 1);
  file.read(name, begin, count + 1, offsets.data());
  std::int64_t previous = offsets.front();
  if (previous < 0)
    fail<IoError>(fmt::format("{}: {} must be >= 0, got {}", file.name(), name, previous));
  for (std::size_t i = 1; i < offsets.size(); ++i) {
    const std::int64_t at = offsets[i];
    if (at < previous || at > limit || at - previous > longest)
      fail<IoError>(fmt::format("{}: {}[{}] must be in {} .. {}, got {}", file.name(), name,
                                begin + static_cast<std::int64_t>(i), previous,
                                std::min(limit, previous + longest), at));
    previous = at;
  }
  return offsets;
}

/// A ragged column whose offsets of all rows are at hand.
struct RaggedColumn {
  std::string name;
  Offsets offsets;

  template <typename T>
  void read(const Hdf5Reader& file, std::int64_t row, std::vector<T>& out) const {
    const auto [begin, count] = range(row);
    out.resize(static_cast<std::size_t>(count));
    file.read(name, begin, count, out.data());
  }
  std::string read_text(const Hdf5Reader& file, std::int64_t row) const {
    const auto [begin, count] = range(row);
    std::string text(static_cast<std::size_t>(count), '\0');
    file.read(name, begin, count, reinterpret_cast<std::uint8_t*>(text.data()));
    return text;
  }
  std::pair<std::int64_t, std::int64_t> range(std::int64_t row) const {
    const auto at = static_cast<std::size_t>(row);
    return {offsets[at], offsets[at + 1] - offsets[at]};
  }
};

RaggedColumn open_ragged(Hdf5Reader& file, const std::string& name, DType dtype, std::int64_t rows,
                         std::int64_t longest) {
  const std::int64_t values = file.open_dataset(name, dtype);
  const std::string offset_name = name + "_offset";
  open_table(file, offset_name, DType::i64, 1, rows + 1);
  RaggedColumn column{name, read_offsets(file, offset_name, 0, rows, values, longest)};
  if (column.offsets.front() != 0 || column.offsets.back() != values)
    fail<IoError>(fmt::format("{}: {} must run from 0 to {}, got {} .. {}", file.name(),
                              offset_name, values, column.offsets.front(), column.offsets.back()));
  return column;
}

/// Rows begin .. begin+count-1 of a column whose offsets are read with them.
template <typename T>
void read_rows(const Hdf5Reader& file, const std::string& dataset, std::int64_t limit,
               std::int64_t begin, std::int64_t count, bool values, Ragged<T>& out) {
  out.offsets = read_offsets(file, dataset + "_offset", begin, count, limit, kMaxPageText);
  const std::int64_t first = out.offsets.front();
  for (std::int64_t& offset : out.offsets) offset -= first;
  if (!values) return;
  out.values.resize(static_cast<std::size_t>(out.offsets.back()));
  file.read(dataset, first, out.offsets.back(), out.values.data());
}

using Boxes = std::vector<std::array<float, 4>>;

Boxes read_boxes(const Hdf5Reader& file, const std::string& dataset, std::int64_t begin,
                 std::int64_t count) {
  Boxes boxes(static_cast<std::size_t>(count));
  if (count > 0) file.read(dataset, begin, count, boxes.front().data());
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    const auto& b = boxes[i];
    const bool finite = std::all_of(b.begin(), b.end(), [](float x) {
      return std::isfinite(x) && std::abs(x) <= static_cast<float>(kMaxSide);
    });
    if (!finite || b[2] < b[0] || b[3] < b[1])
      fail<IoError>(fmt::format("{}: {}[{}] must be left <= right, top <= bottom, got {} {} {} {}",
                                file.name(), dataset, begin + static_cast<std::int64_t>(i), b[0],
                                b[1], b[2], b[3]));
  }
  return boxes;
}

/// The group of lines or of words; offsets are read page by page.
struct UnitGroup {
  std::string name;
  std::int64_t units = 0, text_bytes = 0, ids = 0;

  void open(Hdf5Reader& file, std::string group, std::int64_t count) {
    name = std::move(group);
    units = count;
    text_bytes = file.open_dataset(name + "/text", DType::u8);
    ids = file.open_dataset(name + "/ids", DType::i32);
    open_table(file, name + "/text_offset", DType::i64, 1, units + 1);
    open_table(file, name + "/ids_offset", DType::i64, 1, units + 1);
    open_table(file, name + "/box", DType::f32, 4, units);
  }

  TextUnits read(const Hdf5Reader& file, std::int64_t begin, std::int64_t count,
                 bool id_values) const {
    TextUnits out;
    read_rows(file, name + "/text", text_bytes, begin, count, true, out.texts);
    read_rows(file, name + "/ids", ids, begin, count, id_values, out.ids);
    out.boxes = read_boxes(file, name + "/box", begin, count);
    return out;
  }
};

/// Format 2's columns of /page and its group /box.
struct RecordGroup {
  RaggedColumn kind, prompt, prompt_ids;
  Offsets first_box;
  std::int64_t label_bytes = 0;

  void open(Hdf5Reader& file, std::int64_t pages, std::int64_t boxes) {
    kind = open_ragged(file, "/page/kind", DType::u8, pages, kMaxNameBytes);
    prompt = open_ragged(file, "/page/prompt", DType::u8, pages, kMaxPageText);
    prompt_ids = open_ragged(file, "/page/prompt_ids", DType::i32, pages, kMaxPageText);
    open_table(file, "/page/picture_sha256", DType::u8, kHashBytes, pages);
    label_bytes = file.open_dataset("/box/label", DType::u8);
    open_table(file, "/box/label_offset", DType::i64, 1, boxes + 1);
    open_table(file, "/box/box", DType::f32, 4, boxes);
  }

  void describe(const Hdf5Reader& file, std::int64_t page, ShardPage& out) const {
    out.kind = kind.read_text(file, page);
    out.picture_sha256.resize(kHashBytes);
    file.read("/page/picture_sha256", page, 1,
              reinterpret_cast<std::uint8_t*>(out.picture_sha256.data()));
  }

  void read(const Hdf5Reader& file, std::int64_t page, ShardPage& out) const {
    out.prompt = prompt.read_text(file, page);
    prompt_ids.read(file, page, out.prompt_ids);
    const auto at = static_cast<std::size_t>(page);
    const std::int64_t begin = first_box[at], count = first_box[at + 1] - begin;
    Ragged<std::uint8_t> labels;
    read_rows(file, "/box/label", label_bytes, begin, count, true, labels);
    const Boxes boxes = read_boxes(file, "/box/box", begin, count);
    for (std::int64_t i = 0; i < count; ++i) {
      const auto& b = boxes[static_cast<std::size_t>(i)];
      if (b[0] < 0 || b[1] < 0 || b[2] > static_cast<float>(out.width) ||
          b[3] > static_cast<float>(out.height))
        fail<IoError>(
            fmt::format("{}: /box/box[{}] must lie in the picture of {} x {}, got {} {} "
                        "{} {}",
                        file.name(), begin + i, out.width, out.height, b[0], b[1], b[2], b[3]));
      const auto label = labels[i];
      out.boxes.push_back({{label.begin(), label.end()}, {b[0], b[1], b[2], b[3]}});
    }
  }
};

}  // namespace

struct Shard::State {
  explicit State(const std::filesystem::path& path) : file(path) {}

  Hdf5Reader file;
  std::string tokenizer_sha256;
  std::int64_t version = 0, pages = 0, lines = 0, words = 0, boxes = 0;
  RaggedColumn id, document, source, text, picture, ids;
  std::vector<std::int32_t> size, number;
  std::vector<float> dots_per_inch;
  Offsets first_line, first_word;
  UnitGroup line_group, word_group;
  RecordGroup records;  // format 2

  void check_format() {
    const std::string format = file.text_attribute("format");
    if (format != detail::kShardFormat)
      fail<IoError>(fmt::format("{}: attribute format must be {}, got \"{}\"", file.name(),
                                detail::kShardFormat, format));
    version = file.integer_attribute("format_version");
    if (version < 1 || version > kShardVersion)
      fail<IoError>(fmt::format("{}: attribute format_version must be in 1 .. {}, got {}",
                                file.name(), kShardVersion, version));
    tokenizer_sha256 = file.text_attribute("tokenizer_sha256");
  }

  /// A page has a PNG file, and a line or word leaves more than a byte of ink in it; a record of
  /// format 2 has an id.
  std::int64_t count(const std::string& name, std::int64_t least_bytes) const {
    const std::int64_t value = file.integer_attribute(name);
    const auto limit = static_cast<std::int64_t>(file.bytes()) / least_bytes;
    if (value < 0 || value > limit)
      fail<IoError>(
          fmt::format("{}: attribute {} must be in 0 .. {} for a file of {} bytes, got {}",
                      file.name(), name, limit, file.bytes(), value));
    return value;
  }

  /// Offsets of lines in pages or words in lines: from 0 to the count.
  Offsets open_firsts(const std::string& name, std::int64_t rows, std::int64_t units) {
    open_table(file, name, DType::i64, 1, rows + 1);
    Offsets firsts = read_offsets(file, name, 0, rows, units, kMaxPageUnits);
    if (firsts.front() != 0 || firsts.back() != units)
      fail<IoError>(fmt::format("{}: {} must run from 0 to {}, got {} .. {}", file.name(), name,
                                units, firsts.front(), firsts.back()));
    return firsts;
  }

  void open() {
    check_format();
    pages = count("pages", version == 1 ? kMinPngBytes : 1);
    lines = count("lines", 1);
    words = count("words", 1);
    id = open_ragged(file, "/page/id", DType::u8, pages, kMaxNameBytes);
    document = open_ragged(file, "/page/document", DType::u8, pages, kMaxNameBytes);
    source = open_ragged(file, "/page/source", DType::u8, pages, kMaxNameBytes);
    text = open_ragged(file, "/page/text", DType::u8, pages, kMaxPageText);
    picture = open_ragged(file, version == 1 ? "/page/png" : "/page/picture", DType::u8, pages,
                          kMaxPictureBytes);
    ids = open_ragged(file, "/page/ids", DType::i32, pages, kMaxPageText);
    open_facts();
    first_line = open_firsts("/page/first_line", pages, lines);
    first_word = open_firsts("/line/first_word", lines, words);
    open_table(file, "/line/block", DType::i32, 1, lines);
    line_group.open(file, "/line", lines);
    word_group.open(file, "/word", words);
    if (version == 1) return;
    boxes = count("boxes", 1);
    records.open(file, pages, boxes);
    records.first_box = open_firsts("/page/first_box", pages, boxes);
  }

  void open_facts() {
    open_table(file, "/page/size", DType::i32, 2, pages);
    open_table(file, "/page/number", DType::i32, 1, pages);
    open_table(file, "/page/dots_per_inch", DType::f32, 1, pages);
    size.resize(static_cast<std::size_t>(pages) * 2);
    number.resize(static_cast<std::size_t>(pages));
    dots_per_inch.resize(static_cast<std::size_t>(pages));
    file.read("/page/size", 0, pages, size.data());
    file.read("/page/number", 0, pages, number.data());
    file.read("/page/dots_per_inch", 0, pages, dots_per_inch.data());
    for (std::int64_t page = 0; page < pages; ++page) {
      const auto at = static_cast<std::size_t>(page) * 2;
      const bool is_text = version > 1 && picture.range(page).second == 0;
      const std::int32_t least = is_text ? 0 : 1;
      const auto most = is_text ? 0 : static_cast<std::int32_t>(kMaxSide);
      for (std::size_t i = at; i < at + 2; ++i)
        if (size[i] < least || size[i] > most)
          fail<IoError>(fmt::format("{}: /page/size[{}] must be in {} .. {}, got {}", file.name(),
                                    page, least, most, size[i]));
    }
  }

  void check_page(std::int64_t page) const {
    if (page < 0 || page >= pages)
      fail<IoError>(
          fmt::format("{}: page must be in 0 .. {}, got {}", file.name(), pages - 1, page));
  }
};

Shard::Shard(const std::filesystem::path& path) : state_(std::make_unique<State>(path)) {
  state_->open();
}
Shard::~Shard() = default;
const std::string& Shard::name() const { return state_->file.name(); }
const std::string& Shard::tokenizer_sha256() const { return state_->tokenizer_sha256; }
std::int64_t Shard::pages() const { return state_->pages; }
std::int64_t Shard::lines() const { return state_->lines; }
std::int64_t Shard::words() const { return state_->words; }
std::int64_t Shard::boxes() const { return state_->boxes; }
const std::vector<std::int64_t>& Shard::first_line() const { return state_->first_line; }

std::int64_t Shard::picture_bytes(std::int64_t page) const {
  state_->check_page(page);
  return state_->picture.range(page).second;
}

std::optional<std::int64_t> Shard::prompt_tokens(std::int64_t page) const {
  state_->check_page(page);
  if (state_->version == 1 || state_->records.prompt.range(page).second == 0) return std::nullopt;
  return state_->records.prompt_ids.range(page).second;
}

std::int64_t Shard::token_count(std::int64_t page) const {
  state_->check_page(page);
  return state_->ids.range(page).second;
}

std::array<std::int64_t, 2> Shard::size(std::int64_t page) const {
  state_->check_page(page);
  const auto at = static_cast<std::size_t>(page) * 2;
  return {state_->size[at], state_->size[at + 1]};
}

ShardPage Shard::describe(std::int64_t page) const {
  const State& s = *state_;
  const auto [width, height] = size(page);
  ShardPage out;
  out.id = s.id.read_text(s.file, page);
  out.document = s.document.read_text(s.file, page);
  out.source = s.source.read_text(s.file, page);
  out.number = s.number[static_cast<std::size_t>(page)];
  out.width = width;
  out.height = height;
  out.dots_per_inch = s.dots_per_inch[static_cast<std::size_t>(page)];
  if (s.version > 1) s.records.describe(s.file, page, out);
  return out;
}

ShardPage Shard::read(std::int64_t page, bool picture) const {
  const State& s = *state_;
  ShardPage out = describe(page);
  if (picture || s.version == 1) s.picture.read(s.file, page, out.picture);
  if (s.version == 1) {  // which does not store it
    out.picture_sha256 =
        sha256_of({reinterpret_cast<const char*>(out.picture.data()), out.picture.size()});
    if (!picture) out.picture = {};
  }
  if (s.version > 1) s.records.read(s.file, page, out);
  out.text = s.text.read_text(s.file, page);
  s.ids.read(s.file, page, out.ids);
  const auto at = static_cast<std::size_t>(page);
  const std::int64_t line = s.first_line[at], lines = s.first_line[at + 1] - line;
  out.lines = s.line_group.read(s.file, line, lines, true);
  out.blocks.resize(static_cast<std::size_t>(lines));
  s.file.read("/line/block", line, lines, out.blocks.data());
  out.first_word.assign(s.first_word.begin() + line, s.first_word.begin() + line + lines + 1);
  const std::int64_t word = out.first_word.front();
  for (std::int64_t& first : out.first_word) first -= word;
  if (out.first_word.back() > kMaxPageUnits)
    fail<IoError>(fmt::format("{}: page {} must have at most {} words, got {}", name(), page,
                              kMaxPageUnits, out.first_word.back()));
  out.words = s.word_group.read(s.file, word, out.first_word.back(), true);
  return out;
}

UnitTable Shard::line_table() const {
  const State& s = *state_;
  UnitTable table{s.line_group.read(s.file, 0, s.lines, false), s.first_line, {}};
  table.blocks.resize(static_cast<std::size_t>(s.lines));
  s.file.read("/line/block", 0, s.lines, table.blocks.data());
  return table;
}

UnitTable Shard::word_table() const {
  const State& s = *state_;
  UnitTable table{s.word_group.read(s.file, 0, s.words, false), {}, {}};
  table.first_unit.reserve(s.first_line.size());
  for (const std::int64_t line : s.first_line)
    table.first_unit.push_back(s.first_word[static_cast<std::size_t>(line)]);
  return table;
}

}  // namespace lectern
