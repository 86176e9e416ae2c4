#include "recipes/encoder_features.h"

namespace lectern {
namespace {

/// A parameter of the encoder that is trained, if there is one.
std::optional<std::string> trained_parameter(const ParameterStore& store) {
  for (const auto& [name, variable] : store.trainable())
    for (const std::string& prefix : ocr2_parts::kEncoder)
      if (name.starts_with(prefix)) return name;
  return std::nullopt;
}

/// Stacks equally shaped tensors [..] to [n, ..].
Tensor stack(const std::vector<Tensor>& parts) {
  Shape shape{static_cast<std::int64_t>(parts.size())};
  for (const std::int64_t size : parts[0].shape()) shape.push_back(size);
  Tensor out = Tensor::empty(shape);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i);
    check_shape(parts[i], parts[0].shape(), "encoder cache", "rows of an image");
    out.slice(0, row, row + 1).view(parts[0].shape()).copy_from(parts[i]);
  }
  return out;
}

}  // namespace

EncoderFeatures::EncoderFeatures(const Recipe& recipe, const Ocr2Model& model) : model_(model) {
  const auto trained = trained_parameter(model.store());
  is_frozen_ = !trained;
  if (!recipe.encoder_cache.enabled) return;
  if (trained)
    fail<ConfigError>(fmt::format(
        "encoder_cache.enabled: needs a frozen encoder, but {} is trained (stage 3 freezes it)",
        *trained));
  const std::filesystem::path folder = recipe.encoder_cache.dir.empty()
                                           ? recipe.run_dir / "encoder-cache"
                                           : std::filesystem::path(recipe.encoder_cache.dir);
  cache_ = std::make_unique<EncoderCache>(
      folder, parameter_fingerprint(model.store(), ocr2_parts::kEncoder),
      recipe.encoder_cache.max_bytes);
}

Ocr2Input EncoderFeatures::input_of(const Batch& batch) const {
  Ocr2Input input;
  input.input_ids = batch.input_ids;
  input.labels = batch.labels;
  input.positions = batch.positions;
  input.segment_start = batch.segment_start;
  input.pixel_values = batch.pixel_values;
  input.pixel_values_local = batch.pixel_values_local;
  input.num_local_patches.assign(batch.num_local_patches.begin(), batch.num_local_patches.end());
  return input;
}

CachedFeatures EncoderFeatures::encode_one(const Ocr2Input& input, std::int64_t image,
                                           std::int64_t first_tile, std::int64_t tiles) const {
  // One image at a time: its rows then have the same bits whatever else is in the batch, so a
  // cached run, an uncached one and a resumed one agree.
  const NoGrad off;
  ForwardContext context;
  Ocr2Input one;
  one.pixel_values = input.pixel_values.slice(0, image, image + 1).contiguous();
  if (tiles > 0)
    one.pixel_values_local =
        input.pixel_values_local.slice(0, first_tile, first_tile + tiles).contiguous();
  const VisualFeatures visual = model_.encode(one, context);
  const Tensor global = visual.global.value();
  return {global.view({global.dim(1), global.dim(2)}), tiles > 0 ? visual.local.value() : Tensor()};
}

VisualFeatures EncoderFeatures::features_of(const Batch& batch, const Ocr2Input& input,
                                            ForwardContext& context) {
  if (batch.num_local_patches.empty()) return {};
  if (!is_frozen_) return model_.encode(input, context);
  std::vector<Tensor> globals, tiles;
  std::int64_t image = 0, tile = 0;  // places in the pixel tensors, which lack the cached images
  for (std::size_t i = 0; i < batch.num_local_patches.size(); ++i) {
    const std::int64_t count = batch.num_local_patches[i];
    auto features = cache_ ? cache_->find(batch.image_keys[i]) : std::nullopt;
    if (!features) {
      if (batch.has_pixels[i] == 0)
        fail<Error>(
            fmt::format("encoder cache: {} has neither pixels nor rows", batch.image_keys[i]));
      features = encode_one(input, image, tile, count);
      if (cache_) cache_->insert(batch.image_keys[i], *features);
    }
    if (batch.has_pixels[i] != 0) {
      ++image;
      tile += count;
    }
    globals.push_back(features->global);
    for (std::int64_t t = 0; t < count; ++t)
      tiles.push_back(features->local.slice(0, t, t + 1)
                          .view({features->local.dim(1), features->local.dim(2)}));
  }
  VisualFeatures out;
  out.global = Variable(stack(globals));
  if (!tiles.empty()) out.local = Variable(stack(tiles));
  return out;
}

}  // namespace lectern
