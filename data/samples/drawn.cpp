#include "data/samples/drawn.h"

#include "core/error.h"
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
    return key_of(request, grid(request.draw.unit, request.views()));
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
    out.text = std::move(text.text);
    out.response_ids = std::move(text.ids);
    out.columns = lengths.grid.columns;
    out.rows = lengths.grid.rows;
    out.image_tokens = lengths.image;
    out.key = key_of(request, lengths.grid);
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

  std::string key_of(const SampleRequest& request, const ViewGrid& tiles) const {
    const ViewOptions& view = request.views();
    const SampleOptions& options = request.options;
    return fmt::format("drawn|{}|{}|{}:{}x{}:{}|{},{}{}", options_.synthetic->fingerprint(),
                       request.draw.unit, view.global_size, tiles.columns, tiles.rows,
                       view.tile_size, options.margin, options.jitter_pixels,
                       options.at_top ? "|top" : "");
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

/// What drawn text looks like; the ranges are those of SyntheticSource.
void read_look(SettingsReader& table, SyntheticOptions& out) {
  const SyntheticOptions usual;
  const auto share = [&](std::string_view key, double otherwise) {
    return table.number(key, otherwise, 0, 1);
  };
  out.fonts = table.strings("fonts", std::vector<std::string>{});
  out.distinct_share = share("distinct_share", usual.distinct_share);
  out.random_share = share("random_share", usual.random_share);
  out.font_size = table.range("font_size", usual.font_size, 2, 512);
  out.bold_share = share("bold_share", usual.bold_share);
  out.italic_share = share("italic_share", usual.italic_share);
  out.stretch = table.number("stretch", usual.stretch, 0, 0.5);
  out.rotation_degrees = table.number("rotation_degrees", usual.rotation_degrees, 0, 2);
  out.blur = table.number("blur", usual.blur, 0, 8);
  out.noise = table.number("noise", usual.noise, 0, 100);
  out.jpeg_share = share("jpeg_share", usual.jpeg_share);
  out.jpeg_quality = table.integer("jpeg_quality", usual.jpeg_quality, 1, 95);
  out.ink = table.integer("ink", usual.ink, 0, 191);
  out.paper = table.integer("paper", usual.paper, out.ink + 64, 255);
  out.colour_share = share("colour_share", usual.colour_share);
  if (out.level != Level::page) return;
  const auto width = table.range("page_width", {600, 900}, 64, 8192);
  out.page_width = {static_cast<std::int64_t>(width[0]), static_cast<std::int64_t>(width[1])};
}

void read_corpus(SettingsReader& table, CorpusOptions& out) {
  const auto text = table.strings("text", std::nullopt);
  if (text.empty()) table.refuse("text", "must name a file or folder, got none");
  out.text.assign(text.begin(), text.end());
  out.exclude = table.strings("exclude", std::vector<std::string>{});
  out.scripts.clear();
  for (const std::string& name : table.strings("scripts", std::vector<std::string>{"latin"})) {
    if (name != "latin" && name != "greek" && name != "cyrillic" && name != "cjk")
      table.refuse("scripts", fmt::format("must be of \"latin\", \"greek\", \"cyrillic\" and "
                                          "\"cjk\", got \"{}\"",
                                          name));
    out.scripts.push_back(script_from(name));
  }
}

}  // namespace

std::shared_ptr<const SampleSource> make_drawn_source(DrawnOptions options,
                                                      const Tokenizer& tokenizer) {
  return std::make_shared<const DrawnSource>(std::move(options), tokenizer);
}

std::shared_ptr<const SampleSource> DrawnSettings::open(const SourceContext& context) const {
  SyntheticOptions seeded = look;
  seeded.seed = context.seed;
  DrawnOptions drawn = options;
  drawn.synthetic = std::make_shared<const SyntheticSource>(TextCorpus(text), seeded);
  return make_drawn_source(std::move(drawn), context.tokenizer);
}

std::shared_ptr<const SourceSettings> read_drawn_settings(SettingsReader& table,
                                                          const SourceDefaults& defaults) {
  auto out = std::make_shared<DrawnSettings>();
  SyntheticOptions& look = out->look;
  out->label = table.choice("level", std::nullopt, {"page", "region", "line", "word", "character"});
  look.level = level_from(out->label);
  out->options.prompt = defaults.prompt;
  out->text.ascii_only = table.boolean("ascii_only", defaults.ascii_only);
  const std::int64_t usual = defaults.max_characters == 0 ? 12 : defaults.max_characters;
  look.max_characters = table.integer("max_characters", usual, 1, 1000);
  out->options.max_response_tokens =
      table.integer("max_text_tokens", defaults.max_text_tokens, 1, 1 << 20);
  if (look.level == Level::region) look.region_lines = table.integer("region_lines", 4, 2, 200);
  read_corpus(table, out->text);
  look.min_characters = table.integer("min_characters", 1, 1, look.max_characters);
  read_look(table, look);
  return out;
}

}  // namespace lectern
