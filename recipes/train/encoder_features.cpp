#include "recipes/train/encoder_features.h"

#include "core/io/files.h"
#include "recipes/machine/versions.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace lectern {
namespace {

/// A parameter of the encoder that is trained, if there is one.
std::optional<std::string> trained_parameter(const OcrModel& model) {
  for (const Parameter& parameter : model.store().parameters()) {
    const bool has_pairs = parameter.low_rank != nullptr && parameter.low_rank->defined();
    if (!parameter.variable.requires_grad() && !has_pairs) continue;
    for (const std::string& prefix : model.config().parts().encoder)
      if (parameter.name.starts_with(prefix)) return parameter.name;
  }
  return std::nullopt;
}

/// Views that go through the encoder together. The number depends on their size alone, and a short
/// group is filled up: kernels choose their blocking by shape, so the rows of a view then have the
/// same bits whatever else is in the batch, and a cached, an uncached and a resumed run agree.
std::int64_t views_a_group(std::int64_t size) {
  constexpr std::int64_t kPixels = 1 << 16, kMost = 16;
  return std::clamp<std::int64_t>(kPixels / (size * size), 1, kMost);
}

/// Settings of hyper-connections that change the encoder's output and are no weights.
std::string residual_key(const OcrModel& model) {
  ResidualConfig residual = model.config().residual;
  if (residual.is_plain() || !residual.in_encoder) return "";
  FieldValues values;
  describe(residual, values);
  return fmt::format("-{} {}", name_of(residual.kind), values.text());
}

/// All that rows depend on beside the picture: weights, what config.json says of the layers (heads,
/// windows), the dtype of compute, the device, and the program, whose kernels and image processor
/// may have changed.
std::string fingerprint_of(const Recipe& recipe, const OcrModel& model) {
  nlohmann::json layers = model.config().to_json();
  layers.erase("lectern");  // how pages are read; residual_key() has the rest of it
  return fmt::format("{}{}\n{} {}\n{}\n{}\n",
                     parameter_fingerprint(model.store(), model.config().parts().encoder),
                     residual_key(model), recipe.dtype, recipe.device,
                     sha256_of(layers.dump()).substr(0, 16), git_revision());
}

/// Stacks equally shaped tensors [..] to [n, ..] on a device.
Tensor stack(const std::vector<Tensor>& parts, Device device) {
  Shape shape{static_cast<std::int64_t>(parts.size())};
  for (const std::int64_t size : parts[0].shape()) shape.push_back(size);
  Tensor out = Tensor::empty(shape, DType::f32, device);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i);
    check_shape(parts[i], parts[0].shape(), "encoder cache", "rows of an image");
    out.slice(0, row, row + 1).view(parts[0].shape()).copy_from(parts[i]);
  }
  return out;
}

}  // namespace

EncoderFeatures::EncoderFeatures(const Recipe& recipe, const OcrModel& model, int rank, int ranks)
    : model_(model) {
  const auto trained = trained_parameter(model);
  is_frozen_ = !trained;
  if (!recipe.encoder_cache.enabled) return;
  if (trained)
    fail<ConfigError>(fmt::format(
        "encoder_cache.enabled: needs a frozen encoder, but {} is trained (stage 3 freezes it)",
        *trained));
  std::filesystem::path folder = recipe.encoder_cache.dir.empty()
                                     ? recipe.run_dir / "encoder-cache"
                                     : std::filesystem::path(recipe.encoder_cache.dir);
  if (rank > 0) folder /= fmt::format("rank-{}", rank);
  cache_ = std::make_unique<EncoderCache>(folder, fingerprint_of(recipe, model),
                                          recipe.encoder_cache.max_bytes / ranks);
}

ModelInput input_of(const Batch& batch) {
  ModelInput input;
  input.input_ids = batch.input_ids;
  input.labels = batch.labels;
  input.positions = batch.positions;
  input.segment_start = batch.segment_start;
  input.pixel_values = batch.pixel_values;
  input.pixel_values_local = batch.pixel_values_local;
  input.num_local_patches.assign(batch.num_local_patches.begin(), batch.num_local_patches.end());
  return input;
}

std::vector<Tensor> EncoderFeatures::encode_views(const Tensor& pixels,
                                                  const std::vector<std::int64_t>& chosen) const {
  std::vector<Tensor> out;
  if (chosen.empty()) return out;
  const NoGrad off;
  const Shape one{pixels.dim(1), pixels.dim(2), pixels.dim(3)};
  const std::int64_t group = views_a_group(pixels.dim(2));
  for (std::size_t at = 0; at < chosen.size(); at += static_cast<std::size_t>(group)) {
    ModelInput views;
    views.pixel_values = Tensor::empty({group, one[0], one[1], one[2]});
    for (std::int64_t i = 0; i < group; ++i) {
      const std::size_t from = std::min(at + static_cast<std::size_t>(i), chosen.size() - 1);
      views.pixel_values.slice(0, i, i + 1)
          .copy_from(pixels.slice(0, chosen[from], chosen[from] + 1));
    }
    ForwardContext context;
    const Tensor rows = model_.encode(views, context).global.value();
    for (std::int64_t i = 0; i < group && at + static_cast<std::size_t>(i) < chosen.size(); ++i)
      out.push_back(rows.slice(0, i, i + 1).view({rows.dim(1), rows.dim(2)}));
  }
  return out;
}

void EncoderFeatures::encode_missing(const Batch& batch, const ModelInput& input) {
  std::vector<std::size_t> images;           // of the batch
  std::vector<std::int64_t> globals, tiles;  // their places in the pixel tensors
  std::int64_t image = 0, tile = 0;          // the pixel tensors lack the cached images
  for (std::size_t i = 0; i < batch.num_local_patches.size(); ++i) {
    const std::int64_t count = batch.num_local_patches[i];
    if (!fresh_.contains(batch.image_keys[i]) && !is_cached(batch.image_keys[i])) {
      if (batch.has_pixels[i] == 0)
        fail<Error>(
            fmt::format("encoder cache: {} has neither pixels nor rows", batch.image_keys[i]));
      images.push_back(i);
      globals.push_back(image);
      for (std::int64_t t = 0; t < count; ++t) tiles.push_back(tile + t);
      fresh_[batch.image_keys[i]] = {};
    }
    if (batch.has_pixels[i] != 0) {
      ++image;
      tile += count;
    }
  }
  const std::vector<Tensor> global_rows = encode_views(input.pixel_values, globals);
  const std::vector<Tensor> tile_rows = encode_views(input.pixel_values_local, tiles);
  auto next_tile = tile_rows.begin();
  const Device device = model_.store().device();
  for (std::size_t i = 0; i < images.size(); ++i) {
    const auto count = batch.num_local_patches[images[i]];
    CachedFeatures features{global_rows[i], {}};
    if (count > 0) features.local = stack({next_tile, next_tile + count}, device);
    next_tile += count;
    if (cache_) {
      const Tensor& local = features.local;
      cache_->insert(batch.image_keys[images[i]],
                     {features.global.to(Device{}), local.defined() ? local.to(Device{}) : local});
    }
    fresh_[batch.image_keys[images[i]]] = std::move(features);
  }
}

MediaRows EncoderFeatures::features_of(const Batch& batch, const ModelInput& input,
                                       ForwardContext& context) {
  if (batch.num_local_patches.empty()) return {};
  if (!is_frozen_) return model_.encode(input, context);
  fresh_.clear();
  encode_missing(batch, input);
  std::vector<Tensor> globals, tiles;
  for (const std::string& key : batch.image_keys) {
    const auto fresh = fresh_.find(key);
    const CachedFeatures features =
        fresh != fresh_.end() ? fresh->second : cache_->find(key).value();
    globals.push_back(features.global);
    if (!features.local.defined()) continue;
    for (std::int64_t t = 0; t < features.local.dim(0); ++t)
      tiles.push_back(
          features.local.slice(0, t, t + 1).view({features.local.dim(1), features.local.dim(2)}));
  }
  MediaRows out;
  const Device device = model_.store().device();
  out.global = Variable(stack(globals, device));
  if (!tiles.empty()) out.local = Variable(stack(tiles, device));
  return out;
}

}  // namespace lectern
