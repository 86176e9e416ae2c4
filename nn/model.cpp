#include "nn/model.h"

#include "core/error.h"

#include <algorithm>
#include <utility>

namespace lectern {
namespace {

ParameterStore::Owned owned_in(const ModelConfig& config, const std::vector<UnitRange>& units) {
  if (units.empty()) return {};
  const std::shared_ptr<const ModelConfig> shared = config.clone();
  return [shared, units](const std::string& name) {
    const std::int64_t unit = shared->unit_of_parameter(name);
    return std::any_of(units.begin(), units.end(), [&](const UnitRange& range) {
      return unit >= range.begin && unit < range.end;
    });
  };
}

}  // namespace

OcrModel::OcrModel(const ModelConfig& config, std::uint64_t seed, DType dtype,
                   ParameterValues values, const ModelPlacement& placement)
    : store_(seed, dtype, values, owned_in(config, placement.units)) {}

void OcrModel::load_pretrained(std::string_view name, const std::filesystem::path& path) {
  fail<ConfigError>(fmt::format("model.init_{}: must be left out, {} has no such part; got {}",
                                name, config().family(), path.string()));
}

MediaRows OcrModel::encode(const ModelInput& input, ForwardContext& context) const {
  const Activation x = run_units({0, config().first_decoder_unit()}, input, {}, context);
  return {x.global.graph, x.local.graph};
}

Variable OcrModel::embed(const ModelInput& input, const MediaRows& media) const {
  return merge_media(decoder().embedding(), config().image_token_id, input.input_ids,
                     media_layout(input, media));
}

Activation OcrModel::run_units(const UnitRange& range, const ModelInput& input, Activation x,
                               ForwardContext& context) const {
  const std::int64_t first = config().first_decoder_unit();
  // One view after the other, each through all encoder units: a stack is passed at one go.
  const UnitRange encoder{range.begin, std::min(range.end, first)};
  if (encoder.begin < encoder.end) {
    const auto run = [&](const Tensor& pixels, Streams& streams, std::vector<Tensor>& mixes,
                         const char* view) {
      if (!pixels.defined()) return;
      context.stream_mixes = std::move(mixes);
      streams = run_encoder(encoder, pixels, std::move(streams), context, view);
      mixes = std::exchange(context.stream_mixes, {});  // none once the stack has been left
    };
    run(input.pixel_values, x.global, x.global_mixes, "global.");
    run(input.pixel_values_local, x.local, x.local_mixes, "local.");
  }
  const UnitRange blocks{std::max(range.begin, first),
                         std::min(range.end, config().unit_count() - 1)};
  if (blocks.begin >= blocks.end) return x;
  if (blocks.begin == first) {
    const Variable embeddings = embed(input, {x.global.graph, x.local.graph});
    x = {};
    x.hidden = decoder().enter(embeddings, context);
  }
  x.hidden = decoder().run({blocks.begin - first, blocks.end - first}, std::move(x.hidden),
                           causal_layout(input), context);
  return x;
}

ModelLoss OcrModel::loss_of(const Streams& hidden, const ModelInput& input,
                            ForwardContext& context) const {
  check_shape(input.labels, input.input_ids.shape(), "loss", "labels");
  return decoder().loss(hidden, input.labels, context);
}

ModelLoss OcrModel::loss(const ModelInput& input, ForwardContext& context,
                         const MediaRows* media) const {
  const MediaRows computed = media == nullptr ? encode(input, context) : *media;
  Activation x;
  if (computed.global.defined()) x.global = Streams(computed.global);
  if (computed.local.defined()) x.local = Streams(computed.local);
  const UnitRange units{config().first_decoder_unit(), config().unit_count()};
  return loss_of(run_units(units, input, std::move(x), context).hidden, input, context);
}

}  // namespace lectern
