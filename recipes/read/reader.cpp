#include "recipes/read/reader.h"

#include <algorithm>
#include <utility>

namespace lectern {
namespace {

constexpr std::string_view kImage = "<image>";

std::vector<std::int32_t> encode_prompt(const Tokenizer& tokenizer, const std::string& prompt) {
  if (!prompt.starts_with(kImage) || prompt.find(kImage, kImage.size()) != std::string::npos)
    fail<ConfigError>(fmt::format("prompt: must begin with its only <image>, got \"{}\"", prompt));
  return tokenizer.encode(std::string_view(prompt).substr(kImage.size()));
}

}  // namespace

ViewOptions view_options(const ModelConfig& config, const ReadingSettings& reading) {
  ViewOptions out;
  out.global_size = reading.global_size;
  out.tile_size = reading.tile_size;
  out.crop = reading.crop;
  out.patch_size = config.patch_size();
  const std::shared_ptr<const ModelConfig> model = config.clone();
  out.tokens = [model, global = out.global_size, tile = out.tile_size](const ViewGrid& grid) {
    return model->picture_tokens(global, tile, grid.columns, grid.rows);
  };
  return out;
}

ViewOptions view_options(const ModelConfig& config) { return view_options(config, config.reading); }

Reader::Reader(const OcrModel& model, const Tokenizer& tokenizer, const ReaderArgs& args)
    : model_(model),
      tokenizer_(tokenizer),
      args_(args),
      views_(view_options(model.config())),
      prompt_ids_(encode_prompt(
          tokenizer, args.prompt.empty() ? model.config().reading.prompt : args.prompt)) {}

ModelInput Reader::prompt_for(const ImageViews& views, std::span<const std::int32_t> prompt) const {
  const ModelConfig& config = model_.config();
  const std::int64_t image_tokens = image_token_count(views_, views.grid);
  const auto prompt_tokens = static_cast<std::int64_t>(prompt.size());
  ModelInput input;
  input.input_ids = Tensor::full({1, 1 + image_tokens + prompt_tokens},
                                 static_cast<double>(config.image_token_id), DType::i32);
  std::int32_t* ids = input.input_ids.data<std::int32_t>();
  ids[0] = static_cast<std::int32_t>(config.decoder.bos_token_id);
  std::copy(prompt.begin(), prompt.end(), ids + 1 + image_tokens);
  input.num_local_patches = {static_cast<std::int64_t>(views.local.size())};
  input.pixel_values = normalised_views({views.global});
  if (!views.local.empty()) input.pixel_values_local = normalised_views(views.local);
  return input;
}

void Reader::generate(const std::function<std::optional<ModelInput>()>& next,
                      const OnText& on_text) {
  GenerationArgs args;
  args.max_new_tokens = args_.max_new_tokens;
  args.eos = static_cast<std::int32_t>(model_.config().decoder.eos_token_id);
  args.guard = args_.guard;
  args.stop = args_.stop;
  statistics_.add(generate_stream(model_, next, args, std::max<std::int64_t>(1, args_.batch),
                                  [&](std::size_t number, const std::vector<std::int32_t>& tokens) {
                                    on_text(number, tokenizer_.decode(tokens));
                                  }));
}

void Reader::read_stream(const ViewSource& next, const OnText& on_text) {
  generate(
      [&]() -> std::optional<ModelInput> {
        const std::optional<ImageViews> views = next();
        if (!views) return std::nullopt;
        return prompt_for(*views, prompt_ids_);
      },
      on_text);
}

std::vector<std::string> Reader::read_all(std::size_t count, const PromptOf& prompt_of,
                                          const std::function<void(std::int64_t)>& progress) {
  std::vector<std::string> out(count);
  std::size_t asked = 0;
  std::int64_t done = 0;
  generate(
      [&]() -> std::optional<ModelInput> {
        if (asked == count) return std::nullopt;
        return prompt_of(asked++);
      },
      [&](std::size_t number, std::string text) {
        out[number] = std::move(text);
        if (progress) progress(++done);
      });
  return out;
}

std::vector<std::string> Reader::read(const std::vector<Image>& images,
                                      const std::function<void(std::int64_t)>& progress) {
  return read_all(
      images.size(),
      [&](std::size_t i) { return prompt_for(make_views(images[i], views_), prompt_ids_); },
      progress);
}

std::vector<std::string> Reader::read_views(const std::vector<ImageViews>& pictures,
                                            const std::function<void(std::int64_t)>& progress,
                                            std::span<const std::vector<std::int32_t>> prompts) {
  return read_all(
      pictures.size(),
      [&](std::size_t i) {
        return prompt_for(pictures[i], prompts.empty() ? prompt_ids_ : prompts[i]);
      },
      progress);
}

}  // namespace lectern
