// Which part of the model a rank of the mesh holds, and the order of its pipeline.
#pragma once

#include "distributed/mesh.h"
#include "distributed/pipeline_schedule.h"
#include "nn/model.h"
#include "recipes/recipe/recipe.h"

#include <optional>
#include <vector>

namespace lectern {

struct RankPlacement {
  PipelineShape pipeline;         ///< of one micro-batch count a step
  std::vector<UnitRange> pieces;  ///< of this rank, by chunk; without a pipeline all units
  ModelPlacement model;
  /// The first piece has the whole encoder, all of it frozen: then its output may come from a
  /// cache.
  bool encoder_is_apart = false;

  bool has_unit(std::int64_t unit) const;
  bool has_whole_model() const { return pipeline.stages == 1 && model.expert_ranks == 1; }
};

/// Cuts the units as mesh.split says, or where estimated costs (frozen units count their forward
/// only, an encoder with a cache nothing) come nearest to each other. Throws ConfigError when
/// mesh.split has another number of pieces than mesh.pp x mesh.chunks, does not rise or does not
/// end with the last unit.
RankPlacement place_on_mesh(const Recipe& recipe, const ModelConfig& config, const Mesh& mesh);

/// What one piece of the model gives: tensors for the piece after it, or, the last one, the loss.
/// Where gains of residual streams are wanted, the mixes so far are among the tensors.
struct PieceResult {
  std::vector<Streams> tensors;
  std::optional<ModelLoss> loss;
};

/// Runs the units of `piece` on what the piece before gave (nothing for the first).
PieceResult run_piece(const OcrModel& model, const UnitRange& piece, const ModelInput& input,
                      const std::vector<Variable>& received, ForwardContext& context);

}  // namespace lectern
