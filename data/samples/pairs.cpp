#include "data/samples/pairs.h"

#include "core/error.h"
#include "core/io/files.h"
#include "data/samples/records.h"
#include "data/tokenizer/prompt.h"

#include <algorithm>
#include <utility>

namespace lectern {
namespace {

class PairSource final : public SampleSource {
 public:
  PairSource(PairOptions options, const Tokenizer& tokenizer)
      : options_(std::move(options)), id_limit_(tokenizer.id_limit()) {
    if (options_.shards == nullptr) fail<ConfigError>("samples: a source of pairs has no shards");
    if (options_.max_response_tokens < 1)
      fail<ConfigError>(fmt::format("samples: {}: max_response_tokens must be >= 1, got {}",
                                    describe(), options_.max_response_tokens));
    check_tokenizer(tokenizer, options_.shards->tokenizer_sha256(), folder());
    prompt_ids_ = encode_prompt(tokenizer, options_.prompt);
    for (std::int64_t record = 0; record < options_.shards->pages(); ++record) {
      const std::int64_t tokens = options_.shards->token_count(record);
      const bool is_empty =
          tokens < 1 || (options_.pictures_only && options_.shards->size(record)[0] == 0);
      if (!is_empty && tokens <= options_.max_response_tokens)
        records_.push_back(static_cast<std::uint32_t>(record));
      else
        ++(is_empty ? left_out_.empty : left_out_.tokens);
    }
    if (records_.empty())
      fail<ConfigError>(
          fmt::format("samples: no {} passes the filters ({} did not)", describe(), dropped()));
  }

  std::string describe() const override {
    return "pair of " + (options_.shards ? folder() : "nothing");
  }
  std::int64_t count() const override { return static_cast<std::int64_t>(records_.size()); }
  LeftOut left_out() const override { return left_out_; }
  void each_record(const std::function<void(const SourceRecord&)>& visit) const override {
    visit_records(*options_.shards, visit);
  }

  SampleLengths lengths(std::int64_t index, const ViewOptions& view) const override {
    const std::int64_t at = record(index);
    const ShardSet& shards = *options_.shards;
    SampleLengths out;
    out.response = shards.token_count(at);
    const auto [width, height] = shards.size(at);
    const bool has_picture = width > 0;
    const auto usual = has_picture ? static_cast<std::int64_t>(prompt_ids_.size()) : 0;
    out.prompt = shards.prompt_tokens(at).value_or(usual);
    if (!has_picture) return out;
    out.grid = choose_grid(width, height, view);
    out.image = image_token_count(view, out.grid);
    return out;
  }

  std::string key(const SampleRequest& request) const override {
    return key_of(request, options_.shards->read(record(request.draw.unit))->page);
  }

  Sample make(const SampleRequest& request, bool pixels) const override {
    const std::int64_t at = record(request.draw.unit);
    const SampleLengths lengths = this->lengths(request.draw.unit, request.views());
    pixels = pixels && lengths.image > 0;
    const auto read = pixels ? options_.shards->decoded(at) : options_.shards->read(at);
    const ShardPage& page = read->page;
    Sample out;
    out.kind = page.kind;
    out.page_id = page.id;
    out.document = page.document;
    out.columns = lengths.grid.columns;
    out.rows = lengths.grid.rows;
    out.image_tokens = lengths.image;
    if (!page.prompt.empty())
      out.prompt_ids = page.prompt_ids;
    else if (page.has_picture())
      out.prompt_ids = prompt_ids_;
    out.response_ids = page.ids;
    out.text = page.text;
    out.box = {0, 0, static_cast<double>(page.width), static_cast<double>(page.height)};
    out.key = key_of(request, page);
    check(out, lengths);
    if (!pixels) return out;
    ImageViews made = make_views(read->crop(0, 0, page.width, page.height), request.views());
    out.global = std::move(made.global);
    out.local = std::move(made.local);
    return out;
  }

  WholePage whole_page(std::int64_t index) const override {
    if (options_.shards->size(record(index))[0] == 0) return SampleSource::whole_page(index);
    const auto page = options_.shards->decoded(record(index));
    return {page->crop(0, 0, page->page.width, page->page.height), page->page.dots_per_inch};
  }

 private:
  std::string folder() const { return options_.shards->folder().string(); }
  std::int64_t record(std::int64_t index) const {
    return records_[static_cast<std::size_t>(index)];
  }

  /// The content itself: ids of two collections may be the same.
  std::string key_of(const SampleRequest& request, const ShardPage& page) const {
    const ViewOptions& view = request.views();
    const ViewGrid tiles = lengths(request.draw.unit, view).grid;
    const std::string& prompt = page.prompt.empty() ? options_.prompt : page.prompt;
    const std::string text = sha256_of(fmt::format("{}:{}{}", prompt.size(), prompt, page.text));
    return fmt::format("pair|{}|{}|{}|{}:{}x{}:{}", page.id, page.picture_sha256, text,
                       view.global_size, tiles.columns, tiles.rows, view.tile_size);
  }

  /// The tables were read when the source was made; the file may have changed since, or hold what
  /// no tokenizer made.
  void check(const Sample& sample, const SampleLengths& lengths) const {
    const auto size = [](const std::vector<std::int32_t>& ids) {
      return static_cast<std::int64_t>(ids.size());
    };
    if (size(sample.prompt_ids) != lengths.prompt || size(sample.response_ids) != lengths.response)
      fail<IoError>(
          fmt::format("{}: record {} changed while it was in use", folder(), sample.page_id));
    for (const auto* ids : {&sample.prompt_ids, &sample.response_ids})
      for (const std::int32_t id : *ids)
        if (id < 0 || id >= id_limit_)
          fail<IoError>(fmt::format("{}: record {}: tokens must be in 0 .. {}, got {}", folder(),
                                    sample.page_id, id_limit_ - 1, id));
  }

  PairOptions options_;
  std::int64_t id_limit_;
  std::vector<std::int32_t> prompt_ids_;
  std::vector<std::uint32_t> records_;
  LeftOut left_out_;
};

}  // namespace

std::shared_ptr<const SampleSource> make_pair_source(PairOptions options,
                                                     const Tokenizer& tokenizer) {
  return std::make_shared<const PairSource>(std::move(options), tokenizer);
}

std::shared_ptr<const SampleSource> PairSettings::open(const SourceContext& context) const {
  PairOptions pairs = options;
  pairs.shards = context.shards.open(folder);
  pairs.pictures_only = context.is_read;
  return make_pair_source(std::move(pairs), context.tokenizer);
}

void PairSettings::describe(FieldVisitor& f, const SourceDefaults& defaults) {
  options.prompt = defaults.prompt;
  describe_max_text_tokens(f, options.max_response_tokens, defaults);
  describe_shards(f, folder);
}

}  // namespace lectern
