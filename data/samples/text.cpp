#include "data/samples/text.h"

#include "core/error.h"
#include "data/samples/records.h"
#include "data/samples/unit_index.h"

#include <utility>

namespace lectern {
namespace {

class TextSource final : public SampleSource {
 public:
  TextSource(CutOptions options, const Tokenizer& tokenizer) : options_(std::move(options)) {
    options_.level = Level::page;
    options_.cut_width = 0;
    index_ = detail::index_units(options_, tokenizer, describe(), true);
  }

  std::string describe() const override {
    return "text of " + (options_.shards ? options_.shards->folder().string() : "nothing");
  }
  std::int64_t count() const override { return static_cast<std::int64_t>(index_.units.size()); }
  LeftOut left_out() const override { return index_.left_out; }
  void each_record(const std::function<void(const SourceRecord&)>& visit) const override {
    visit_records(*options_.shards, visit);
  }

  SampleLengths lengths(std::int64_t index, const ViewOptions& /*view*/) const override {
    return {0, 0, unit(index).tokens, {}};
  }

  std::string key(const SampleRequest& request) const override {
    return key_of(request, options_.shards->read(unit(request.draw.unit).page)->page);
  }

  Sample make(const SampleRequest& request, bool /*pixels*/) const override {
    const detail::Unit& from = unit(request.draw.unit);
    const auto read = options_.shards->read(from.page);
    const ShardPage& page = read->page;
    if (static_cast<std::int64_t>(page.ids.size()) != from.tokens)
      fail<IoError>(fmt::format("{}: page {} changed while it was in use",
                                options_.shards->folder().string(), page.id));
    Sample out;
    out.kind = "text";
    out.page_id = page.id;
    out.document = page.document;
    out.text = page.text;
    out.response_ids = page.ids;
    out.box = {0, 0, static_cast<double>(page.width), static_cast<double>(page.height)};
    out.key = key_of(request, page);
    return out;
  }

  WholePage whole_page(std::int64_t index) const override {
    const auto page = options_.shards->decoded(unit(index).page);
    return {page->crop(0, 0, page->page.width, page->page.height), page->page.dots_per_inch};
  }

 private:
  const detail::Unit& unit(std::int64_t index) const {
    return index_.units[static_cast<std::size_t>(index)];
  }

  static std::string key_of(const SampleRequest& request, const ShardPage& page) {
    const ViewOptions& view = request.views();
    return fmt::format("{}|{}x{}|text|0+1|{}:0x0:{}", page.id, page.width, page.height,
                       view.global_size, view.tile_size) +
           content_key("", page.text);
  }

  CutOptions options_;
  detail::UnitIndex index_;
};

}  // namespace

std::shared_ptr<const SampleSource> make_text_source(CutOptions options,
                                                     const Tokenizer& tokenizer) {
  return std::make_shared<const TextSource>(std::move(options), tokenizer);
}

std::shared_ptr<const SampleSource> TextSettings::open(const SourceContext& context) const {
  CutOptions pages = options;
  pages.shards = context.shards.open(folder);
  return make_text_source(std::move(pages), context.tokenizer);
}

void TextSettings::describe(FieldVisitor& f, const SourceDefaults& defaults) {
  describe_ascii_only(f, options.ascii_only, defaults);
  f.integer("max_characters", options.max_characters, within(0, 1 << 24),
            {"characters", "of a record", "0: any"});
  describe_max_text_tokens(f, options.max_response_tokens, defaults);
  describe_shards(f, folder);
}

}  // namespace lectern
