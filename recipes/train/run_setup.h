// What a training run is made of, set up from a recipe or from the run's newest checkpoint: the
// model on its device and its place in the mesh, data, optimizer, run folder, log and checkpoints.
#pragma once

#include "data/samples/loader.h"
#include "distributed/expert_parallel.h"
#include "distributed/mesh.h"
#include "distributed/parallel_adamw.h"
#include "nn/adapter.h"
#include "nn/model.h"
#include "recipes/checkpoint/adapter_folder.h"
#include "recipes/checkpoint/folder.h"
#include "recipes/checkpoint/saver.h"
#include "recipes/checkpoint/training_state.h"
#include "recipes/log/run_log.h"
#include "recipes/recipe/recipe.h"
#include "recipes/train/encoder_features.h"
#include "recipes/train/memory_budget.h"
#include "recipes/train/placement.h"
#include "recipes/train/training_data.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace lectern {

struct RunSetup {
  /// Collective. Throws as train() (recipes/train/trainer.h). `recipe` must outlive the run.
  RunSetup(const Recipe& recipe, bool resume, const std::shared_ptr<Communicator>& world);
  RunSetup(const RunSetup&) = delete;
  RunSetup& operator=(const RunSetup&) = delete;

  /// One rank writes what there is once: the run folder, metrics, progress.
  bool is_first() const { return mesh.world().rank() == 0; }

  /// The parameters that train or may train, and that checkpoints hold: the model's, or its
  /// adapter's.
  ParameterStore& trained() const { return adapter ? adapter->store() : model->store(); }

  /// Opens the samples of the level that the state is at, from where the state stands.
  void open_level();
  /// Opens the log and says what is about to be trained.
  void open_log();

  const Recipe& recipe;
  Device device;
  Mesh mesh;
  Tokenizer tokenizer;
  std::unique_ptr<const ModelConfig> config;
  RankPlacement placement;
  std::string began_from;  ///< what the first weights are, or a checkpoint
  std::unique_ptr<OcrModel> model;
  AdapterInfo adapter_info;          ///< of `adapter`
  std::unique_ptr<Adapter> adapter;  ///< null: the model itself trains
  TrainingData data;
  RunFolder folder;  // made when all that the recipe names has been read: a typo leaves no folder
  ParallelAdamW optimizer;
  MemoryBudget budget;
  std::optional<RunLog> log;
  CheckpointSaver saver;
  RunState state;
  std::int64_t saved_step = -1;               ///< of the newest checkpoint, under way or complete
  std::vector<ValidationSet> validation;      ///< of the level
  std::unique_ptr<EncoderFeatures> features;  ///< null where a rank has no encoder of its own
  std::unique_ptr<Loader> loader;             // its threads ask features, so it goes first
  std::optional<ExpertParallel> experts;      ///< where they are spread over ranks

 private:
  CheckpointSaverOptions saver_options();
  /// The adapter that the recipe trains, on the weights that it adapts.
  std::unique_ptr<Adapter> make_adapter();
  /// Weights from the newest checkpoint, or those that the recipe begins with.
  void restore(bool resume);
  /// Reads the values of trained() from a checkpoint.
  void load_trained(const std::filesystem::path& checkpoint);
  /// Files that the recipe names are the same on all ranks, as far as their figures tell.
  void check_ranks_read_the_same() const;
};

}  // namespace lectern
