#include "data/samples/cut.h"

#include "core/error.h"
#include "core/random.h"
#include "data/images/piece_view.h"
#include "data/samples/records.h"
#include "data/samples/unit_index.h"
#include "data/tokenizer/prompt.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace lectern {
namespace {

using detail::Unit;
using detail::UnitIndex;

/// Whole pixels of the page around a box.
struct Rectangle {
  std::int64_t left, top, width, height;
};

Rectangle around(const Box& box, std::int64_t padding) {
  const auto left = static_cast<std::int64_t>(std::floor(box.left)) - padding;
  const auto top = static_cast<std::int64_t>(std::floor(box.top)) - padding;
  return {left, top, static_cast<std::int64_t>(std::ceil(box.right)) + padding - left,
          static_cast<std::int64_t>(std::ceil(box.bottom)) + padding - top};
}

Box join(const Box& a, const Box& b) {
  return {std::min(a.left, b.left), std::min(a.top, b.top), std::max(a.right, b.right),
          std::max(a.bottom, b.bottom)};
}

/// Where a pasted text moves this time.
std::array<std::int64_t, 2> jitter(const SampleRequest& request) {
  const SampleOptions& options = request.options;
  if (options.jitter_pixels == 0) return {0, 0};
  Random random(options.seed, "sample/jitter");
  random.seek(4 * request.draw.position);
  const auto choices = static_cast<std::uint64_t>(2 * options.jitter_pixels + 1);
  const auto x = static_cast<std::int64_t>(random.below(choices)) - options.jitter_pixels;
  return {x, static_cast<std::int64_t>(random.below(choices)) - options.jitter_pixels};
}

class CutSource final : public SampleSource {
 public:
  CutSource(CutOptions options, const Tokenizer& tokenizer)
      : options_(std::move(options)), tokenizer_(tokenizer), newline_ids_(tokenizer.encode("\n")) {
    index_ = detail::index_units(options_, tokenizer, describe());
    prompt_ids_ = encode_prompt(tokenizer, options_.prompt);
  }

  std::string describe() const override {
    return fmt::format("{} of {}", name_of(options_.level), options_.shards ? folder() : "nothing");
  }
  std::int64_t count() const override { return static_cast<std::int64_t>(index_.units.size()); }
  LeftOut left_out() const override { return index_.left_out; }
  void each_record(const std::function<void(const SourceRecord&)>& visit) const override {
    visit_records(*options_.shards, visit);
  }

  std::int64_t window() const override {
    if (options_.level == Level::page || options_.window_pages == 0) return 0;
    const std::int64_t pages = std::max<std::int64_t>(options_.shards->pages(), 1);
    return std::clamp<std::int64_t>(count() * options_.window_pages / pages, 1, count());
  }

  SampleLengths lengths(std::int64_t index, const ViewOptions& view) const override {
    const ViewGrid tiles = grid(index, view);
    return {image_token_count(view, tiles), static_cast<std::int64_t>(prompt_ids_.size()),
            unit(index).tokens, tiles};
  }

  std::string key(const SampleRequest& request) const override {
    const std::int64_t page = unit(request.draw.unit).page;
    return key_of(request, options_.shards->read(page)->page);
  }

  Sample make(const SampleRequest& request, bool pixels) const override;

  WholePage whole_page(std::int64_t index) const override {
    const auto page = options_.shards->decoded(unit(index).page);
    return {page->crop(0, 0, page->page.width, page->page.height), page->page.dots_per_inch};
  }

 private:
  std::string folder() const { return options_.shards->folder().string(); }
  const Unit& unit(std::int64_t index) const {
    return index_.units[static_cast<std::size_t>(index)];
  }

  ViewGrid grid(std::int64_t index, const ViewOptions& view) const {
    if (options_.level != Level::page) return {};
    const auto [width, height] = options_.shards->size(unit(index).page);
    return choose_grid(width, height, view);
  }

  std::string key_of(const SampleRequest& request, const ShardPage& page) const;
  std::string content_of(const Unit& piece, const ShardPage& page) const;
  void check_unit(const Unit& piece, const ShardPage& page) const;
  std::vector<std::vector<std::int64_t>> cut_words(const Unit& piece, const ShardPage& page) const;
  void fill_text(const Unit& piece, const ShardPage& page, Sample& out) const;
  void fill_cut_text(const Unit& piece, const ShardPage& page, Sample& out) const;
  void fill_pixels(const SampleRequest& request, const DecodedPage& page, Sample& out) const;

  CutOptions options_;
  Tokenizer tokenizer_;
  std::vector<std::int32_t> newline_ids_, prompt_ids_;
  UnitIndex index_;
};

/// What the sample shows and says, without the pixels of the page: texts and boxes.
std::string CutSource::content_of(const Unit& piece, const ShardPage& page) const {
  if (options_.level == Level::page) return page.text;
  std::string out;
  const auto add = [&](std::string_view text, const Box& box) {
    out += fmt::format("{} {} {} {} {}\n", box.left, box.top, box.right, box.bottom, text);
  };
  if (options_.has_cuts()) {
    for (const auto& line : cut_words(piece, page))
      for (const std::int64_t word : line) add(page.words.text(word), page.words.box(word));
    return out;
  }
  const TextUnits& units = options_.level == Level::word ? page.words : page.lines;
  for (std::int64_t i = piece.first; i < piece.first + piece.count; ++i)
    add(units.text(i), units.box(i));
  return out;
}

std::string CutSource::key_of(const SampleRequest& request, const ShardPage& page) const {
  const Unit& piece = unit(request.draw.unit);
  check_unit(piece, page);
  const ViewOptions& view = request.views();
  const SampleOptions& options = request.options;
  const ViewGrid tiles = grid(request.draw.unit, view);
  std::string out = fmt::format("{}|{}x{}|{}|{}+{}|{}:{}x{}:{}", page.id, page.width, page.height,
                                name_of(options_.level), piece.first, piece.count, view.global_size,
                                tiles.columns, tiles.rows, view.tile_size);
  if (options_.level != Level::page) {
    const auto [x, y] = jitter(request);
    out += fmt::format("|{},{},{},{},{},{}{}", options.margin, options.padding, options.text_height,
                       options_.cut_width, x, y, options.at_top ? "|top" : "");
  }
  return out + content_key(page.picture_sha256, content_of(piece, page));
}

/// The tables were read when the source was made; the file may have changed since.
void CutSource::check_unit(const Unit& piece, const ShardPage& page) const {
  if (options_.has_cuts()) {
    if (piece.first >= page.words.size())
      fail<IoError>(fmt::format("{}: page {} must have {} words, got {}", folder(), page.id,
                                piece.first + 1, page.words.size()));
    return;
  }
  std::int64_t limit = 1;
  if (options_.level == Level::word) limit = page.words.size();
  if (options_.level == Level::line || options_.level == Level::region) limit = page.lines.size();
  if (static_cast<std::int64_t>(piece.first) + piece.count > limit)
    fail<IoError>(fmt::format("{}: page {} must have {} {}s, got {}", folder(), page.id,
                              piece.first + piece.count, name_of(options_.level), limit));
}

/// Words of a run, or of each line of a window.
std::vector<std::vector<std::int64_t>> CutSource::cut_words(const Unit& piece,
                                                            const ShardPage& page) const {
  if (options_.level == Level::line) {
    std::vector<std::int64_t> run;
    const std::int64_t end = std::min<std::int64_t>(piece.first + piece.count, page.words.size());
    for (std::int64_t i = piece.first; i < end; ++i) run.push_back(i);
    return {run};
  }
  const auto above = std::upper_bound(page.first_word.begin(), page.first_word.end(),
                                      static_cast<std::int64_t>(piece.first));
  const std::int64_t line = above - page.first_word.begin() - 1;
  const std::int64_t count = std::min<std::int64_t>(piece.count, page.lines.size() - line);
  return detail::words_in_window([&](std::int64_t i) { return page.words.box(i); }, page.first_word,
                                 line, count, piece.first, static_cast<double>(options_.cut_width));
}

/// Words side by side have other tokens than each alone.
void CutSource::fill_cut_text(const Unit& piece, const ShardPage& page, Sample& out) const {
  for (const auto& line : cut_words(piece, page)) {
    if (!out.text.empty()) out.text += '\n';
    for (const std::int64_t word : line) {
      out.box = out.text.empty() ? page.words.box(word) : join(out.box, page.words.box(word));
      if (word != line.front()) out.text += ' ';
      out.text += page.words.text(word);
    }
  }
  out.response_ids = tokenizer_.encode(out.text);
}

void CutSource::fill_text(const Unit& piece, const ShardPage& page, Sample& out) const {
  if (options_.level == Level::page) {
    out.text = page.text;
    out.response_ids = page.ids;
    out.box = {0, 0, static_cast<double>(page.width), static_cast<double>(page.height)};
    return;
  }
  if (options_.has_cuts()) return fill_cut_text(piece, page, out);
  const TextUnits& units = options_.level == Level::word ? page.words : page.lines;
  for (std::int64_t i = piece.first; i < piece.first + piece.count; ++i) {
    const bool begins = i == piece.first;
    if (!begins) {
      out.text += '\n';
      out.response_ids.insert(out.response_ids.end(), newline_ids_.begin(), newline_ids_.end());
    }
    const auto ids = units.ids[i];
    out.text += units.text(i);
    out.response_ids.insert(out.response_ids.end(), ids.begin(), ids.end());
    out.box = begins ? units.box(i) : join(out.box, units.box(i));
  }
}

void CutSource::fill_pixels(const SampleRequest& request, const DecodedPage& page,
                            Sample& out) const {
  const ViewOptions& view = request.views();
  const SampleOptions& options = request.options;
  if (options_.level == Level::page) {
    ImageViews made = make_views(page.crop(0, 0, page.page.width, page.page.height), view);
    out.global = std::move(made.global);
    out.local = std::move(made.local);
    return;
  }
  const bool is_region = options_.level == Level::region;
  const Rectangle cut = around(out.box, options.padding);
  Image piece;
  if (is_region && options_.has_cuts()) {
    // Only the words that the text has: others would be cut off at the window's edge.
    piece = make_image(cut.width, cut.height);
    for (const auto& line : cut_words(unit(request.draw.unit), page.page))
      for (const std::int64_t word : line) {
        const Rectangle at = around(page.page.words.box(word), options.padding);
        paste(piece, page.crop(at.left, at.top, at.width, at.height), at.left - cut.left,
              at.top - cut.top);
      }
  } else {
    piece = page.crop(cut.left, cut.top, cut.width, cut.height);
  }
  const auto [x, y] = jitter(request);
  const PieceView place{.size = view.global_size,
                        .margin = options.margin,
                        .text_height = is_region ? 0 : options.text_height,
                        .at_top = options.at_top || is_region,
                        .shift_x = x,
                        .shift_y = y};
  out.global = lay_piece(std::move(piece), out.box.bottom - out.box.top, place);
}

Sample CutSource::make(const SampleRequest& request, bool pixels) const {
  const Unit& piece = unit(request.draw.unit);
  const auto page =
      pixels ? options_.shards->decoded(piece.page) : options_.shards->read(piece.page);
  check_unit(piece, page->page);
  const SampleLengths lengths = this->lengths(request.draw.unit, request.views());
  Sample out;
  out.kind = name_of(options_.level);
  out.page_id = page->page.id;
  out.document = page->page.document;
  out.prompt_ids = prompt_ids_;
  out.columns = lengths.grid.columns;
  out.rows = lengths.grid.rows;
  out.image_tokens = lengths.image;
  out.key = key_of(request, page->page);
  fill_text(piece, page->page, out);
  if (static_cast<std::int64_t>(out.response_ids.size()) != piece.tokens)
    fail<IoError>(fmt::format("{}: page {} changed while it was in use", folder(), out.page_id));
  if (pixels) fill_pixels(request, *page, out);
  return out;
}

}  // namespace

std::shared_ptr<const SampleSource> make_cut_source(CutOptions options,
                                                    const Tokenizer& tokenizer) {
  return std::make_shared<const CutSource>(std::move(options), tokenizer);
}

std::shared_ptr<const SampleSource> CutSettings::open(const SourceContext& context) const {
  CutOptions cut = options;
  cut.shards = context.shards.open(folder);
  return make_cut_source(std::move(cut), context.tokenizer);
}

void CutSettings::describe(FieldVisitor& f, const SourceDefaults& defaults) {
  std::string level(name_of(options.level));
  f.choice("level", level, {"page", "region", "line", "word"},
           {.meaning = "what one sample is; of drawn sources also `\"character\"`; `\"pairs\"` and "
                       "`\"text\"` have none",
            .required = true});
  options.level = level_from(level);
  options.prompt = defaults.prompt;
  describe_ascii_only(f, options.ascii_only, defaults);
  options.max_characters = defaults.max_characters;
  f.integer("max_characters", options.max_characters, within(0, 1 << 20),
            {"characters", "of a word or line; of each line of a drawn region",
             "from `[data]`; drawn 12, `\"text\"` 0: any"});
  describe_max_text_tokens(f, options.max_response_tokens, defaults);
  if (options.level == Level::region)
    f.integer("region_lines", options.region_lines, within(1, 200),
              {"lines", "most lines of a region"});
  describe_shards(f, folder);
  if (options.level == Level::line || options.level == Level::region)
    f.integer("cut_width", options.cut_width, within(0, 1 << 20),
              {"pixels of the page",
               "of shards: lines are cut between words into runs, regions into windows this wide",
               "0: whole lines"});
}

}  // namespace lectern
