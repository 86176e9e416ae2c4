#include "recipes/reader.h"

#include <algorithm>
#include <map>

namespace lectern {
namespace {

constexpr std::string_view kImage = "<image>";

std::vector<std::int32_t> encode_prompt(const Tokenizer& tokenizer, const std::string& prompt) {
  if (!prompt.starts_with(kImage) || prompt.find(kImage, kImage.size()) != std::string::npos)
    fail<ConfigError>(fmt::format("prompt: must begin with its only <image>, got \"{}\"", prompt));
  return tokenizer.encode(std::string_view(prompt).substr(kImage.size()));
}

}  // namespace

ViewOptions view_options(const Ocr2Config& config) {
  ViewOptions out;
  out.global_size = config.reading.global_size;
  out.tile_size = config.reading.tile_size;
  out.crop = config.reading.crop;
  out.patch_size = config.sam.patch_size;
  out.small_queries = config.queries_768;
  out.large_queries = config.queries_1024;
  out.visual_tokens = config.decoder_reads == DecoderReads::visual;
  return out;
}

Reader::Reader(const Ocr2Model& model, const Tokenizer& tokenizer, const ReaderArgs& args)
    : model_(model),
      tokenizer_(tokenizer),
      args_(args),
      views_(view_options(model.config())),
      prompt_ids_(encode_prompt(
          tokenizer, args.prompt.empty() ? model.config().reading.prompt : args.prompt)) {}

Ocr2Input Reader::prompt_for(const std::vector<ImageViews>& batch) const {
  const Ocr2Config& config = model_.config();
  const std::int64_t images = static_cast<std::int64_t>(batch.size());
  const std::int64_t image_tokens = image_token_count(views_, batch[0].grid);
  const auto prompt_tokens = static_cast<std::int64_t>(prompt_ids_.size());
  const std::int64_t length = 1 + image_tokens + prompt_tokens;
  Ocr2Input input;
  input.input_ids =
      Tensor::full({images, length}, static_cast<double>(config.image_token_id), DType::i32);
  std::vector<Image> globals, locals;
  for (std::int64_t i = 0; i < images; ++i) {
    std::int32_t* row = input.input_ids.data<std::int32_t>() + i * length;
    row[0] = static_cast<std::int32_t>(config.text.bos_token_id);
    std::copy(prompt_ids_.begin(), prompt_ids_.end(), row + 1 + image_tokens);
    const ImageViews& views = batch[static_cast<std::size_t>(i)];
    globals.push_back(views.global);
    locals.insert(locals.end(), views.local.begin(), views.local.end());
    input.num_local_patches.push_back(static_cast<std::int64_t>(views.local.size()));
  }
  input.pixel_values = normalised_views(globals);
  if (!locals.empty()) input.pixel_values_local = normalised_views(locals);
  return input;
}

std::vector<std::string> Reader::read_batch(const std::vector<ImageViews>& batch) {
  GenerationArgs args;
  args.max_new_tokens = args_.max_new_tokens;
  args.eos = static_cast<std::int32_t>(model_.config().text.eos_token_id);
  args.guard = args_.guard;
  std::vector<std::string> out;
  GenerationStatistics done;
  for (const auto& tokens : generate(model_, prompt_for(batch), args, nullptr, {}, &done))
    out.push_back(tokenizer_.decode(tokens));
  statistics_.add(done);
  return out;
}

std::vector<std::string> Reader::read(const std::vector<Image>& images,
                                      const std::function<void(std::int64_t)>& progress) {
  std::vector<int> tiles;
  for (const Image& image : images)
    tiles.push_back(choose_grid(image.width, image.height, views_).tiles());
  return read_groups(
      tiles, [&](std::size_t i) { return make_views(images[i], views_); }, progress);
}

std::vector<std::string> Reader::read_views(const std::vector<ImageViews>& pictures,
                                            const std::function<void(std::int64_t)>& progress) {
  std::vector<int> tiles;
  for (const ImageViews& picture : pictures) tiles.push_back(picture.grid.tiles());
  return read_groups(
      tiles, [&](std::size_t i) { return pictures[i]; }, progress);
}

std::vector<std::string> Reader::read_groups(const std::vector<int>& tiles, const ViewsOf& views_of,
                                             const std::function<void(std::int64_t)>& progress) {
  // Pictures with the same number of tiles have prompts of the same length: one batch.
  std::map<int, std::vector<std::size_t>> groups;
  for (std::size_t i = 0; i < tiles.size(); ++i) groups[tiles[i]].push_back(i);
  std::vector<std::string> out(tiles.size());
  std::int64_t done = 0;
  for (const auto& [count, members] : groups) {
    // Tiles are as heavy as pictures: they count against the batch.
    const std::size_t step =
        static_cast<std::size_t>(std::max<std::int64_t>(1, args_.batch / (1 + count)));
    for (std::size_t at = 0; at < members.size(); at += step) {
      const std::size_t end = std::min(members.size(), at + step);
      std::vector<ImageViews> batch;
      for (std::size_t i = at; i < end; ++i) batch.push_back(views_of(members[i]));
      const auto texts = read_batch(batch);
      for (std::size_t i = at; i < end; ++i) out[members[i]] = texts[i - at];
      done += static_cast<std::int64_t>(end - at);
      if (progress) progress(done);
    }
  }
  return out;
}

}  // namespace lectern
