#include "recipes/placement.h"

#include "core/error.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace lectern {
namespace {

/// Ends of the pieces, in the order of the model.
std::vector<std::int64_t> ends_of_pieces(const Recipe& recipe, const Ocr2Config& config,
                                         const std::vector<bool>& trained) {
  const std::int64_t pieces = recipe.mesh.pp * recipe.mesh.chunks, units = unit_count(config);
  if (recipe.mesh.split.empty()) {
    constexpr double kForwardAndBackward = 3;  // backward is about twice the forward
    std::vector<double> costs = estimated_unit_costs(config);
    bool has_backward = false;
    for (std::size_t i = 0; i < costs.size(); ++i) {
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

}  // namespace

bool RankPlacement::has_unit(std::int64_t unit) const {
  return std::any_of(pieces.begin(), pieces.end(), [&](const Ocr2UnitRange& piece) {
    return piece.begin <= unit && unit < piece.end;
  });
}

RankPlacement place_on_mesh(const Recipe& recipe, const Ocr2Config& config, const Mesh& mesh) {
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
  if (out.pipeline.stages == 1) {
    out.pieces = {{0, unit_count(config)}};
    return out;
  }
  const std::vector<bool> trained = trained_units(config, recipe.freeze);
  const std::vector<std::int64_t> ends = ends_of_pieces(recipe, config, trained);
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

PieceResult run_piece(const Ocr2Model& model, const Ocr2UnitRange& piece, const Ocr2Input& input,
                      const std::vector<Variable>& received, ForwardContext& context) {
  const std::int64_t decoder = first_decoder_unit(model.config());
  const auto streams_of = [&](std::size_t i) {
    return i < received.size() && received[i].defined() ? Streams(received[i]) : Streams();
  };
  Ocr2Activation x;
  if (piece.begin > decoder) {
    x.hidden = streams_of(0);
  } else {
    x.global = streams_of(0);
    x.local = streams_of(1);
  }
  x = model.run_units(piece, input, std::move(x), context);
  PieceResult out;
  if (piece.end == unit_count(model.config()))
    out.loss = model.loss_of(x.hidden, input, context);
  else if (piece.end > decoder)
    out.tensors = {x.hidden};
  else
    out.tensors = {x.global, x.local};
  return out;
}

}  // namespace lectern
