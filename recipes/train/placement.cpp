#include "recipes/train/placement.h"

#include "core/error.h"
#include "recipes/train/adapter_setup.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace lectern {
namespace {

/// Ends of the pieces, in the order of the model.
std::vector<std::int64_t> ends_of_pieces(const Recipe& recipe, const ModelConfig& config,
                                         const std::vector<bool>& trained) {
  const std::int64_t pieces = recipe.mesh.pp * recipe.mesh.chunks, units = config.unit_count();
  if (recipe.mesh.split.empty()) {
    constexpr double kForwardAndBackward = 3;  // backward is about twice the forward
    std::vector<double> costs = config.estimated_unit_costs();
    bool has_backward = false;
    const auto decoder = static_cast<std::size_t>(config.first_decoder_unit());
    for (std::size_t i = 0; i < costs.size(); ++i) {
      if (recipe.encoder_cache.enabled && i < decoder && !trained[i]) costs[i] = 0;
      has_backward = has_backward || trained[i];
      if (has_backward) costs[i] *= kForwardAndBackward;
    }
    return split_by_cost(costs, pieces);
  }
  const std::vector<std::int64_t>& ends = recipe.mesh.split;
  const bool rises =
      std::adjacent_find(ends.begin(), ends.end(), std::greater_equal<>()) == ends.end();
  if (static_cast<std::int64_t>(ends.size()) != pieces || !rises || ends.back() != units)
    fail<ConfigError>(fmt::format(
        "mesh.split must be {} rising numbers (mesh.pp x mesh.chunks), the last {}, the number of "
        "units; got [{}]",
        pieces, units, fmt::join(ends, ", ")));
  return ends;
}

/// Mixes of sub-layers [..., n, n] as one tensor [sub-layers, ..., n, n], and back.
Streams joined(const std::vector<Tensor>& mixes) {
  if (mixes.empty()) return {};
  Shape shape{static_cast<std::int64_t>(mixes.size())};
  for (const std::int64_t size : mixes[0].shape()) shape.push_back(size);
  const Tensor out = Tensor::empty(shape, mixes[0].dtype(), mixes[0].device());
  for (std::size_t i = 0; i < mixes.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    out.slice(0, at, at + 1).view(mixes[0].shape()).copy_from(mixes[i]);
  }
  return Streams(Variable(out));
}
std::vector<Tensor> parted(const Variable& mixes) {
  std::vector<Tensor> out;
  if (!mixes.defined()) return out;
  Shape shape;
  for (int i = 1; i < mixes.shape().ndim(); ++i) shape.push_back(mixes.dim(i));
  for (std::int64_t i = 0; i < mixes.dim(0); ++i)
    out.push_back(mixes.value().slice(0, i, i + 1).view(shape));
  return out;
}

}  // namespace

bool RankPlacement::has_unit(std::int64_t unit) const {
  return std::any_of(pieces.begin(), pieces.end(), [&](const UnitRange& piece) {
    return piece.begin <= unit && unit < piece.end;
  });
}

RankPlacement place_on_mesh(const Recipe& recipe, const ModelConfig& config, const Mesh& mesh) {
  RankPlacement out;
  out.pipeline.stages = mesh.shape().pp;
  out.pipeline.chunks = recipe.mesh.chunks;
  const std::int64_t rows = recipe.batch.global_size / mesh.shape().dp;
  // Packs are batches of one row.
  out.pipeline.micro_batches = recipe.data.pack_tokens > 0 ? rows : rows / recipe.batch.micro_batch;
  if (mesh.shape().ep > 1) {
    out.model.expert_ranks = mesh.shape().ep;
    out.model.expert_rank = mesh.experts()->rank();
  }
  const std::vector<bool> trained = trained_units(recipe, config);
  const bool encoder_is_trained =
      std::count(trained.begin(), trained.begin() + config.first_decoder_unit(), true) > 0;
  if (out.pipeline.stages == 1) {
    out.pieces = {{0, config.unit_count()}};
    out.encoder_is_apart = !encoder_is_trained;
    return out;
  }
  const std::vector<std::int64_t> ends = ends_of_pieces(recipe, config, trained);
  out.encoder_is_apart = !encoder_is_trained && ends.front() >= config.first_decoder_unit();
  std::int64_t begin = 0;
  bool is_frozen = true;
  for (std::size_t piece = 0; piece < ends.size(); begin = ends[piece], ++piece) {
    for (std::int64_t unit = begin; unit < ends[piece]; ++unit)
      is_frozen = is_frozen && !trained[static_cast<std::size_t>(unit)];
    if (is_frozen) ++out.pipeline.first_trained;
    if (static_cast<std::int64_t>(piece) % out.pipeline.stages == mesh.stage())
      out.pieces.push_back({begin, ends[piece]});
  }
  out.model.units = out.pieces;
  return out;
}

PieceResult run_piece(const OcrModel& model, const UnitRange& piece, const ModelInput& input,
                      const std::vector<Variable>& received, ForwardContext& context) {
  const std::int64_t decoder = model.config().first_decoder_unit();
  const auto received_at = [&](std::size_t i) {
    return i < received.size() ? received[i] : Variable();
  };
  const auto streams_at = [&](std::size_t i) {
    const Variable variable = received_at(i);
    return variable.defined() ? Streams(variable) : Streams();
  };
  Activation x;
  if (piece.begin > decoder) {
    x.hidden = streams_at(0);
    context.stream_mixes = parted(received_at(1));
  } else {
    x.global = streams_at(0);
    x.local = streams_at(1);
    x.global_mixes = parted(received_at(2));
    x.local_mixes = parted(received_at(3));
  }
  x = model.run_units(piece, input, std::move(x), context);
  PieceResult out;
  if (piece.end == model.config().unit_count())
    out.loss = model.loss_of(x.hidden, input, context);
  else if (piece.end > decoder)
    out.tensors = {x.hidden, joined(context.stream_mixes)};
  else
    out.tensors = {x.global, x.local, joined(x.global_mixes), joined(x.local_mixes)};
  return out;
}

}  // namespace lectern
