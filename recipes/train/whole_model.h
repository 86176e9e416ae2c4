// The whole model where each rank has a part of it, for reading in the middle of a run.
#pragma once

#include "distributed/mesh.h"
#include "nn/model.h"

#include <filesystem>
#include <memory>

namespace lectern {

/// All weights of a model whose parts the ranks of a mesh hold. They go through files in `folder`,
/// which all ranks see: each rank writes a share, each maps all of them, so that the ranks of a
/// host have one copy in its page cache and none of their own; a GPU gets one.
class WholeModel {
 public:
  /// Throws IoError on every rank when one cannot write or read. The names of the files are gone
  /// when it returns; what is mapped stays until the object goes. Collective.
  WholeModel(const OcrModel& part, const Mesh& mesh, const std::filesystem::path& folder);
  ~WholeModel();
  WholeModel(const WholeModel&) = delete;
  WholeModel& operator=(const WholeModel&) = delete;

  const OcrModel& model() const { return *model_; }

 private:
  std::unique_ptr<OcrModel> model_;
};

}  // namespace lectern
