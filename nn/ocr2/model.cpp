#include "nn/ocr2/model.h"

#include "autograd/ops/layout.h"

#include <cmath>

namespace lectern {

Ocr2Model::Ocr2Model(const Ocr2Config& config, std::uint64_t seed, DType dtype,
                     ParameterValues values, const ModelPlacement& placement)
    : OcrModel(config, seed, dtype, values, placement),
      config_(config),
      sam_(store_, config.sam, "model.sam_model."),
      encoder_(store_, config),
      decoder_residual_(decoder_residual(store_, config.decoder, config.residual)),
      projector_(store_, {"model.projector.layers", config.decoder.hidden_size},
                 config.encoder.hidden_size, Initialiser::normal(config.decoder.initializer_range),
                 true),
      view_separator_(store_.add(
          "model.view_seperator", {config.decoder.hidden_size},
          Initialiser::normal(1.0 / std::sqrt(static_cast<double>(config.decoder.hidden_size))))),
      decoder_(store_, config.decoder, decoder_residual_, placement) {}

Streams Ocr2Model::run_encoder(const UnitRange& range, const Tensor& pixels, Streams x,
                               ForwardContext& context, const std::string& view_name) const {
  const std::int64_t image_tokens = config_.visual_tokens(pixels.dim(2));
  for (std::int64_t unit = range.begin; unit < range.end; ++unit) {
    if (unit == 0) {
      const Variable grid = sam_.forward(pixels, context, view_name);
      x = Streams(view(grid, {grid.dim(0), grid.dim(1) * grid.dim(2), grid.dim(3)}));
      continue;
    }
    if (unit == 1) x = encoder_.enter(x.graph, context);
    x = encoder_.block(unit - 1, x, image_tokens, context, view_name);
    if (unit < encoder_.blocks()) continue;
    const Variable queries = encoder_.leave(x, image_tokens, context, view_name);
    x = Streams(projector_.forward(queries));
    context.seam(view_name + "projector", x.value);
  }
  return x;
}

MediaLayout Ocr2Model::media_layout(const ModelInput& input, const MediaRows& media) const {
  MediaLayout out;
  if (!media.global.defined()) return out;
  // Of one picture: its local tiles, row-major, then the global view, then the separator.
  enum Source : std::int32_t { kGlobal = 0, kSeparator = 1, kLocal = 2 };
  const std::int64_t width = config_.decoder.hidden_size, global = media.global.dim(1);
  const std::int64_t local = media.local.defined() ? media.local.dim(1) : 0;
  out.sources = {view(media.global, {-1, width}), view(view_separator_, {1, width})};
  if (local > 0) out.sources.push_back(view(media.local, {-1, width}));
  std::int64_t tile = 0, picture = 0;
  for (const std::int64_t tiles : input.num_local_patches) {
    out.add(kLocal, tile * local, tiles * local);
    out.add(kGlobal, picture * global, global);
    out.add(kSeparator, 0, 1);
    tile += tiles;
    ++picture;
  }
  return out;
}

}  // namespace lectern
