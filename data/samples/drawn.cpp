#include "data/samples/drawn.h"

#include "core/error.h"
#include "data/samples/records.h"
#include "data/tokenizer/prompt.h"

#include <algorithm>
#include <utility>

namespace lectern {
namespace {

/// More samples than any run takes, and the sampler permutes them for nothing.
constexpr std::int64_t kDrawnSamples = std::int64_t{1} << 32;

/// Texts that are tried for one sample until one is short enough.
constexpr int kAttempts = 16;

/// What a drawn sample says.
struct DrawnText {
  std::string text;
  std::vector<std::int32_t> ids;
  int attempt = 0;
};

class DrawnSource final : public SampleSource {
 public:
  DrawnSource(DrawnOptions options, const Tokenizer& tokenizer)
      : options_(std::move(options)), tokenizer_(tokenizer) {
    if (options_.synthetic == nullptr) fail<ConfigError>("samples: a drawn source draws nothing");
    if (options_.max_response_tokens < 1)
      fail<ConfigError>(fmt::format("samples: {}: max_response_tokens must be >= 1, got {}",
                                    describe(), options_.max_response_tokens));
    prompt_ids_ = encode_prompt(tokenizer, options_.prompt);
    text_of(0);
  }

  std::string describe() const override { return fmt::format("drawn {}", name_of(level())); }
  std::int64_t count() const override { return kDrawnSamples; }
  std::string remark() const override {
    const std::int64_t words = options_.synthetic->corpus().dropped();
    if (words == 0) return "";
    return fmt::format(
        "{}: {} words of its text are left out: they have characters outside of `scripts`, or that "
        "no font has",
        describe(), words);
  }
  void each_record(const std::function<void(const SourceRecord&)>& visit) const override {
    visit_files(options_.files, visit);
  }

  SampleLengths lengths(std::int64_t index, const ViewOptions& view) const override {
    return lengths_of(index, view, static_cast<std::int64_t>(text_of(index).ids.size()));
  }

  /// No text is longer than max_response_tokens, no page has more tiles than max_tiles.
  std::int64_t longest(const ViewOptions& view) const override {
    ViewGrid most;
    if (level() == Level::page && view.crop) most = {view.max_tiles, 1};
    return image_token_count(view, most) + static_cast<std::int64_t>(prompt_ids_.size()) +
           options_.max_response_tokens;
  }

  std::string key(const SampleRequest& request) const override {
    return key_of(request, grid(request.draw.unit, request.views()), text_of(request.draw.unit));
  }

  Sample make(const SampleRequest& request, bool pixels) const override {
    const std::int64_t at = request.draw.unit;
    const ViewOptions& view = request.views();
    DrawnText text = text_of(at);
    const SampleLengths lengths = lengths_of(at, view, static_cast<std::int64_t>(text.ids.size()));
    Sample out;
    out.kind = name_of(level());
    out.page_id = fmt::format("drawn/{}", at);
    out.document = "drawn";
    out.prompt_ids = prompt_ids_;
    out.columns = lengths.grid.columns;
    out.rows = lengths.grid.rows;
    out.image_tokens = lengths.image;
    out.key = key_of(request, lengths.grid, text);
    out.text = std::move(text.text);
    out.response_ids = std::move(text.ids);
    if (!pixels) return out;
    const auto index = static_cast<std::uint64_t>(at);
    if (level() == Level::page) {
      ImageViews made = make_views(options_.synthetic->draw_page(index, text.attempt), view);
      out.global = std::move(made.global);
      out.local = std::move(made.local);
      return out;
    }
    const SampleOptions& options = request.options;
    const Placement place{view.global_size, options.margin, options.jitter_pixels, options.at_top};
    out.global = options_.synthetic->draw(index, place, text.attempt);
    return out;
  }

  WholePage whole_page(std::int64_t index) const override {
    const int attempt = text_of(index).attempt;
    return {options_.synthetic->draw_page(static_cast<std::uint64_t>(index), attempt), 0};
  }

 private:
  Level level() const { return options_.synthetic->options().level; }

  ViewGrid grid(std::int64_t index, const ViewOptions& view) const {
    if (level() != Level::page) return {};
    const auto [width, height] = options_.synthetic->page_size(static_cast<std::uint64_t>(index));
    return choose_grid(width, height, view);
  }

  SampleLengths lengths_of(std::int64_t index, const ViewOptions& view,
                           std::int64_t response) const {
    const ViewGrid tiles = grid(index, view);
    return {image_token_count(view, tiles), static_cast<std::int64_t>(prompt_ids_.size()), response,
            tiles};
  }

  /// Which text the sample has is a matter of the longest that is allowed, and of the tokenizer.
  std::string key_of(const SampleRequest& request, const ViewGrid& tiles,
                     const DrawnText& text) const {
    const ViewOptions& view = request.views();
    const SampleOptions& options = request.options;
    return fmt::format("drawn|{}|{}|{}:{}x{}:{}|{},{}{}", options_.synthetic->fingerprint(),
                       request.draw.unit, view.global_size, tiles.columns, tiles.rows,
                       view.tile_size, options.margin, options.jitter_pixels,
                       options.at_top ? "|top" : "") +
           content_key("", fmt::format("{} {}", text.attempt, text.text));
  }

  /// The first text that is short enough and has no special token in it.
  DrawnText text_of(std::int64_t index) const {
    for (DrawnText out; out.attempt < kAttempts; ++out.attempt) {
      out.text = options_.synthetic->text(static_cast<std::uint64_t>(index), out.attempt);
      out.ids = tokenizer_.encode(out.text);
      const bool fits = !out.ids.empty() &&
                        static_cast<std::int64_t>(out.ids.size()) <= options_.max_response_tokens;
      if (fits && std::none_of(out.ids.begin(), out.ids.end(),
                               [&](std::int32_t id) { return tokenizer_.is_special(id); }))
        return out;
    }
    fail<ConfigError>(fmt::format(
        "samples: {} {}: no text of at most max_response_tokens = {} tokens in {} tries",
        describe(), index, options_.max_response_tokens, kAttempts));
  }

  DrawnOptions options_;
  Tokenizer tokenizer_;
  std::vector<std::int32_t> prompt_ids_;
};

}  // namespace

std::shared_ptr<const SampleSource> make_drawn_source(DrawnOptions options,
                                                      const Tokenizer& tokenizer) {
  return std::make_shared<const DrawnSource>(std::move(options), tokenizer);
}

std::shared_ptr<const SampleSource> DrawnSettings::open(const SourceContext& context) const {
  SyntheticOptions seeded = look;
  seeded.seed = context.seed;
  DrawnOptions drawn = options;
  CorpusOptions corpus = text;
  corpus.scripts.clear();
  for (const std::string& name : scripts) corpus.scripts.push_back(script_from(name));
  drawn.files = text_files(corpus);
  drawn.synthetic = std::make_shared<const SyntheticSource>(TextCorpus(corpus), seeded);
  return make_drawn_source(std::move(drawn), context.tokenizer);
}

void DrawnSettings::describe(FieldVisitor& f, const SourceDefaults& defaults) {
  std::string level(name_of(look.level));
  f.choice("level", level, {"page", "region", "line", "word", "character"},
           {.meaning = "what one sample is", .required = true});
  look.level = level_from(level);
  options.prompt = defaults.prompt;
  describe_ascii_only(f, text.ascii_only, defaults);
  if (defaults.max_characters > 0) look.max_characters = defaults.max_characters;
  f.integer("max_characters", look.max_characters, within(1, 1000),
            {"characters", "of a word or line; of each line of a region", "from `[data]`, or 12"});
  describe_max_text_tokens(f, options.max_response_tokens, defaults);
  if (look.level == Level::region)
    f.integer("region_lines", look.region_lines, within(2, 200),
              {"lines", "most lines of a region"});
  describe_text(f);
  f.integer("min_characters", look.min_characters, within(1, look.max_characters),
            {"characters", "of a word or line; at most `max_characters`"});
  f.texts("fonts", look.fonts,
          {"families", "a family that is named must be installed",
           "`[]`: those of `scripts/install-deps.sh` that are there"});
  lectern::describe(look, f);
  if (look.level == Level::page) describe_page(look, f);
}

void DrawnSettings::describe_text(FieldVisitor& f) {
  std::vector<std::string> files(text.text.begin(), text.text.end());
  f.texts("text", files,
          {.unit = "UTF-8 files, folders of .txt",
           .meaning = "of drawn sources; `lectern data pages` writes such a folder",
           .required = true});
  text.text.assign(files.begin(), files.end());
  f.texts("exclude", text.exclude,
          {"beginnings of file names", "files that are left out: held-out documents"});
  f.texts("scripts", scripts,
          {"of `\"latin\"`, `\"greek\"`, `\"cyrillic\"`, `\"cjk\"`",
           "words with other letters are left out"});
}

void DrawnSettings::check(const RefuseKey& refuse) const {
  if (text.text.empty()) refuse("text", "must name a file or folder, got none");
  for (const std::string& name : scripts)
    if (name != "latin" && name != "greek" && name != "cyrillic" && name != "cjk")
      refuse("scripts", fmt::format("must be of \"latin\", \"greek\", \"cyrillic\" and \"cjk\", "
                                    "got \"{}\"",
                                    name));
}

}  // namespace lectern
