// Writing shards: what may go into one, and its columns.
#include "core/error.h"
#include "core/io/files.h"
#include "data/shards/format.h"
#include "data/shards/hdf5_file.h"
#include "data/shards/shard.h"

#include <algorithm>
#include <utility>

namespace lectern {
namespace {

using detail::Hdf5Writer;
using detail::kMaxNameBytes;
using detail::kMaxPictureBytes;
using detail::kMaxSide;
using Offsets = std::vector<std::int64_t>;

std::span<const std::uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
std::string_view text_of(const std::vector<std::uint8_t>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <typename T>
void write_ragged(Hdf5Writer& file, const std::string& name, const Ragged<T>& rows,
                  bool compress = true) {
  file.dataset<T>(name, rows.values, 1, compress);
  file.dataset<std::int64_t>(name + "_offset", rows.offsets);
}

void write_units(Hdf5Writer& file, const std::string& group, const TextUnits& units) {
  write_ragged(file, group + "/text", units.texts);
  write_ragged(file, group + "/ids", units.ids);
  const float* boxes = units.boxes.empty() ? nullptr : units.boxes.front().data();
  file.dataset<float>(group + "/box", std::span<const float>(boxes, units.boxes.size() * 4), 4);
}

/// What add() promises.
class RecordCheck {
 public:
  explicit RecordCheck(const ShardPage& record) : record_(record) {}

  void check() const {
    if (record_.id.empty()) refuse("id must not be empty");
    for (const auto& [field, value] : {std::pair{"id", &record_.id},
                                       {"document", &record_.document},
                                       {"source", &record_.source},
                                       {"kind", &record_.kind}})
      check_name(field, *value);
    check_picture();
    check_prompt();
    if (record_.blocks.size() != static_cast<std::size_t>(record_.lines.size()))
      refuse(fmt::format("blocks must be one for each of {} lines, got {}", record_.lines.size(),
                         record_.blocks.size()));
    const auto& first = record_.first_word;
    if (first.size() != static_cast<std::size_t>(record_.lines.size()) + 1 || first.front() != 0 ||
        first.back() != record_.words.size() || !std::is_sorted(first.begin(), first.end()))
      refuse(fmt::format("first_word must lead from 0 to {} words over {} lines",
                         record_.words.size(), record_.lines.size()));
    for (const LabelledBox& each : record_.boxes) check_box(each);
  }

 private:
  [[noreturn]] void refuse(const std::string& message) const {
    fail<ConfigError>(fmt::format("shard: record \"{}\": {}", record_.id, message));
  }

  void check_name(std::string_view field, const std::string& value) const {
    if (static_cast<std::int64_t>(value.size()) > kMaxNameBytes)
      refuse(
          fmt::format("{} must have at most {} bytes, got {}", field, kMaxNameBytes, value.size()));
  }

  void check_picture() const {
    const bool has_picture = !record_.picture.empty();
    const std::int64_t least = has_picture ? 1 : 0, most = has_picture ? kMaxSide : 0;
    for (const std::int64_t side : {record_.width, record_.height})
      if (side < least || side > most)
        refuse(fmt::format("width and height {} must be in {} .. {}, got {} x {}",
                           has_picture ? "of a picture" : "without a picture", least, most,
                           record_.width, record_.height));
    if (static_cast<std::int64_t>(record_.picture.size()) > kMaxPictureBytes)
      refuse(fmt::format("picture must have at most {} bytes, got {}", kMaxPictureBytes,
                         record_.picture.size()));
  }

  void check_prompt() const {
    constexpr std::string_view kTag = "<image>";
    const std::string_view prompt = record_.prompt;
    const auto found = prompt.rfind(kTag);
    if (found == std::string_view::npos) return;
    if (!record_.has_picture()) refuse("prompt must have no <image> without a picture");
    if (found > 0) refuse("prompt must have <image> once at most, and first");
  }

  void check_box(const LabelledBox& each) const {
    check_name("a box's label", each.label);
    if (each.label.empty()) refuse("a box must have a label, got \"\"");
    const Box& b = each.box;
    const auto width = static_cast<double>(record_.width);
    const auto height = static_cast<double>(record_.height);
    // Written so that NaN is refused as well.
    const bool inside = b.left >= 0 && b.left <= b.right && b.right <= width && b.top >= 0 &&
                        b.top <= b.bottom && b.bottom <= height;
    if (!inside)
      refuse(
          fmt::format("box \"{}\" must be left <= right, top <= bottom in the picture of {} x "
                      "{}, got {} {} {} {}",
                      each.label, record_.width, record_.height, b.left, b.top, b.right, b.bottom));
  }

  const ShardPage& record_;
};

void check_record(const ShardPage& record) { RecordCheck(record).check(); }

}  // namespace

void TextUnits::push_back(std::string_view text, const Box& box,
                          std::span<const std::int32_t> tokens) {
  texts.push_back(bytes_of(text));
  ids.push_back(tokens);
  boxes.push_back({static_cast<float>(box.left), static_cast<float>(box.top),
                   static_cast<float>(box.right), static_cast<float>(box.bottom)});
}

struct ShardWriter::Columns {
  Ragged<std::uint8_t> id, document, source, text, picture, prompt, kind, labels;
  Ragged<std::int32_t> ids, prompt_ids;
  std::vector<std::uint8_t> hashes;
  std::vector<std::int32_t> size, number, blocks;
  std::vector<float> dots_per_inch;
  Offsets first_line{0}, first_word{0}, first_box{0};
  std::vector<float> boxes;
  TextUnits lines, words;

  static void append(TextUnits& to, const TextUnits& from) {
    for (std::int64_t i = 0; i < from.size(); ++i)
      to.push_back(from.text(i), from.box(i), from.ids[i]);
  }
};

ShardWriter::ShardWriter() : columns_(std::make_unique<Columns>()) {}
ShardWriter::~ShardWriter() = default;
std::int64_t ShardWriter::pages() const { return columns_->id.size(); }
std::int64_t ShardWriter::lines() const { return columns_->lines.size(); }
std::int64_t ShardWriter::words() const { return columns_->words.size(); }
std::int64_t ShardWriter::bytes() const {
  const Columns& c = *columns_;
  const auto held = c.picture.values.size() + c.text.values.size() + 4 * c.ids.values.size() +
                    c.prompt.values.size() + c.lines.texts.values.size() +
                    c.words.texts.values.size() +
                    32 * (c.lines.boxes.size() + c.words.boxes.size());
  return static_cast<std::int64_t>(held);
}

void ShardWriter::add(const ShardPage& page) {
  check_record(page);
  Columns& c = *columns_;
  c.id.push_back(bytes_of(page.id));
  c.document.push_back(bytes_of(page.document));
  c.source.push_back(bytes_of(page.source));
  c.text.push_back(bytes_of(page.text));
  c.prompt.push_back(bytes_of(page.prompt));
  c.kind.push_back(bytes_of(page.kind));
  c.picture.push_back(page.picture);
  const std::string hash = sha256_of(text_of(page.picture));
  c.hashes.insert(c.hashes.end(), hash.begin(), hash.end());
  c.ids.push_back(page.ids);
  c.prompt_ids.push_back(page.prompt_ids);
  c.size.push_back(static_cast<std::int32_t>(page.width));
  c.size.push_back(static_cast<std::int32_t>(page.height));
  c.number.push_back(static_cast<std::int32_t>(page.number));
  c.dots_per_inch.push_back(static_cast<float>(page.dots_per_inch));
  c.blocks.insert(c.blocks.end(), page.blocks.begin(), page.blocks.end());
  const std::int64_t words_before = c.first_word.back();
  for (std::size_t i = 1; i < page.first_word.size(); ++i)
    c.first_word.push_back(words_before + page.first_word[i]);
  Columns::append(c.lines, page.lines);
  Columns::append(c.words, page.words);
  c.first_line.push_back(c.lines.size());
  for (const LabelledBox& each : page.boxes) {
    c.labels.push_back(bytes_of(each.label));
    for (const double side : {each.box.left, each.box.top, each.box.right, each.box.bottom})
      c.boxes.push_back(static_cast<float>(side));
  }
  c.first_box.push_back(c.labels.size());
}

void ShardWriter::write(const std::filesystem::path& path, const std::string& tokenizer_sha256) {
  const Columns& c = *columns_;
  Hdf5Writer file(path);
  file.attribute("format", std::string(detail::kShardFormat));
  file.attribute("format_version", kShardVersion);
  file.attribute("tokenizer_sha256", tokenizer_sha256);
  file.attribute("pages", pages());
  file.attribute("lines", lines());
  file.attribute("words", words());
  file.attribute("boxes", c.labels.size());
  for (const char* group : {"/page", "/line", "/word", "/box"}) file.group(group);
  write_ragged(file, "/page/id", c.id);
  write_ragged(file, "/page/document", c.document);
  write_ragged(file, "/page/source", c.source);
  write_ragged(file, "/page/text", c.text);
  write_ragged(file, "/page/prompt", c.prompt);
  write_ragged(file, "/page/kind", c.kind);
  write_ragged(file, "/page/picture", c.picture, false);
  file.dataset<std::uint8_t>("/page/picture_sha256", c.hashes, detail::kHashBytes, false);
  write_ragged(file, "/page/ids", c.ids);
  write_ragged(file, "/page/prompt_ids", c.prompt_ids);
  file.dataset<std::int32_t>("/page/size", c.size, 2);
  file.dataset<std::int32_t>("/page/number", c.number);
  file.dataset<float>("/page/dots_per_inch", c.dots_per_inch);
  file.dataset<std::int64_t>("/page/first_line", c.first_line);
  file.dataset<std::int64_t>("/page/first_box", c.first_box);
  write_units(file, "/line", c.lines);
  file.dataset<std::int32_t>("/line/block", c.blocks);
  file.dataset<std::int64_t>("/line/first_word", c.first_word);
  write_units(file, "/word", c.words);
  write_ragged(file, "/box/label", c.labels);
  file.dataset<float>("/box/box", c.boxes, 4);
  file.close();
  columns_ = std::make_unique<Columns>();
}

}  // namespace lectern
