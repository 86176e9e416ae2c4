// The whole model where each rank has a part of it, for reading in the middle of a run.
#pragma once

#include "nn/adapter.h"
#include "nn/model.h"
#include "recipes/train/run_setup.h"

#include <filesystem>
#include <memory>

namespace lectern {

/// All weights of a model whose parts the ranks of a mesh hold. They go through files in the run's
/// folder of checkpoints, which all ranks see: each rank writes a share, each maps all of them, so
/// that the ranks of a host have one copy in its page cache and none of their own; a GPU gets one.
/// Of an adapter only the pairs go that way: the model is mapped again from where it is.
class WholeModel {
 public:
  /// Throws IoError on every rank when one cannot write or read. The names of the files are gone
  /// when it returns; what is mapped stays until the object goes. Collective.
  explicit WholeModel(const RunSetup& run);
  ~WholeModel();
  WholeModel(const WholeModel&) = delete;
  WholeModel& operator=(const WholeModel&) = delete;

  const OcrModel& model() const { return *model_; }

 private:
  /// Makes the model from what the ranks have written.
  void read(const RunSetup& run, const std::filesystem::path& path);

  std::unique_ptr<OcrModel> model_;
  std::unique_ptr<Adapter> adapter_;
};

}  // namespace lectern
