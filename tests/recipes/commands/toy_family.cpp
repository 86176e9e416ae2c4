// A second model family, the smallest that there can be: an encoder of one linear layer over
// patches. With recipes/main.cpp it is a lectern that knows one family more (toy_family_test.cpp).
#include "autograd/ops/layout.h"
#include "autograd/ops/patchify.h"
#include "core/io/fields.h"
#include "nn/families.h"
#include "nn/linear.h"
#include "nn/model.h"

#include <nlohmann/json.hpp>

namespace lectern {
namespace {

const std::string kProjector = "model.patch_projector";

class ToyConfig final : public ModelConfig {
 public:
  std::int64_t patch = 8;

  std::unique_ptr<ModelConfig> clone() const override { return std::make_unique<ToyConfig>(*this); }
  std::string_view family() const override { return "toy"; }
  nlohmann::json to_json() const override;
  std::unique_ptr<OcrModel> make(std::uint64_t seed, DType dtype, ParameterValues values,
                                 const ModelPlacement& placement) const override;
  double parameter_count() const override {
    return lectern::parameter_count(decoder, {}) +
           static_cast<double>(decoder.hidden_size * (3 * patch * patch + 1));
  }
  const ModelParts& parts() const override {
    static const ModelParts parts = {
        {kProjector + "."}, {kProjector + "."}, decoder_prefixes(), {"lm_head."}};
    return parts;
  }
  std::int64_t patch_size() const override { return patch; }
  std::int64_t visual_tokens(std::int64_t pixels) const override {
    return (pixels / patch) * (pixels / patch);
  }
  std::int64_t decoder_tokens(std::int64_t pixels) const override { return visual_tokens(pixels); }
  std::int64_t picture_tokens(std::int64_t global, std::int64_t tile, std::int64_t columns,
                              std::int64_t rows) const override {
    return visual_tokens(global) + columns * rows * visual_tokens(tile);  // nothing separates them
  }
  std::int64_t encoder_units() const override { return 1; }
  std::optional<std::int64_t> encoder_unit_of(const std::string& name) const override {
    return name.starts_with(kProjector) ? std::optional<std::int64_t>(0) : std::nullopt;
  }
  std::string encoder_unit_name(std::int64_t) const override { return "patch projector"; }
  double rows_of(std::int64_t, const std::string&,
                 std::span<const ViewCount> views) const override {
    double rows = 0;
    for (const ViewCount& view : views)
      rows += view.count * static_cast<double>(visual_tokens(view.pixels));
    return rows;
  }
  UnitSizes encoder_sizes(std::int64_t, std::span<const ViewCount>) const override { return {}; }
  double estimated_rows(std::int64_t) const override {
    return static_cast<double>(visual_tokens(reading.global_size));
  }
};

class ToyModel final : public OcrModel {
 public:
  ToyModel(const ToyConfig& config, std::uint64_t seed, DType dtype, ParameterValues values,
           const ModelPlacement& placement)
      : OcrModel(config, seed, dtype, values, placement),
        config_(config),
        projector_(store_, {kProjector, config.decoder.hidden_size},
                   3 * config.patch * config.patch, Initialiser::normal(0.1), true),
        decoder_(store_, config.decoder, decoder_residual(store_, config.decoder, {}), placement) {}

  const ModelConfig& config() const override { return config_; }
  const Decoder& decoder() const override { return decoder_; }

 protected:
  Streams run_encoder(const UnitRange&, const Tensor& pixels, Streams, ForwardContext&,
                      const std::string&) const override {
    const Variable patches = patchify(Variable(pixels), static_cast<int>(config_.patch));
    return Streams(projector_.forward(view(patches, {pixels.dim(0), -1, patches.dim(3)})));
  }
  MediaLayout media_layout(const ModelInput&, const MediaRows& media) const override {
    MediaLayout out;
    if (!media.global.defined()) return out;
    out.sources = {view(media.global, {-1, config_.decoder.hidden_size})};
    out.add(0, 0, out.sources[0].dim(0));
    return out;
  }

 private:
  ToyConfig config_;
  Linear projector_;
  Decoder decoder_;
};

nlohmann::json ToyConfig::to_json() const {
  nlohmann::json out = {{"model_type", "toy"},
                        {"patch_size", patch},
                        {"image_token_id", image_token_id},
                        {"text_config", lectern::to_json(decoder)}};
  write_reading(reading, out["lectern"]);
  return out;
}

std::unique_ptr<OcrModel> ToyConfig::make(std::uint64_t seed, DType dtype, ParameterValues values,
                                          const ModelPlacement& placement) const {
  return std::make_unique<ToyModel>(*this, seed, dtype, values, placement);
}

std::unique_ptr<ModelConfig> parse_toy(const nlohmann::json& json, const std::string& name) {
  const Fields in(json, name);
  auto out = std::make_unique<ToyConfig>();
  out->patch = in.size("patch_size", 8, 1, 1024);
  out->decoder = parse_decoder(in.object("text_config"));
  out->image_token_id = in.size("image_token_id", 3, 0, out->decoder.vocab_size - 1);
  if (in.has("lectern")) parse_reading(in.object("lectern"), out->reading);
  return out;
}

[[maybe_unused]] const bool kAdded = [] {
  add_family(
      {.name = "toy",
       .title = "Toy",
       .released = [] { return std::make_unique<ToyConfig>(); },
       .matches = [](const nlohmann::json& json) { return json.value("model_type", "") == "toy"; },
       .parse = parse_toy});
  return true;
}();

}  // namespace
}  // namespace lectern
