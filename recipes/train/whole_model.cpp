#include "recipes/train/whole_model.h"

#include "core/error.h"
#include "distributed/world.h"
#include "nn/weights.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/checkpoint/weight_shards.h"
#include "recipes/train/adapter_setup.h"
#include "recipes/train/initial_weights.h"

#include <nlohmann/json.hpp>

#include <string>
#include <system_error>
#include <vector>

namespace lectern {
namespace {

/// Goes with its folder.
class Folder {
 public:
  Folder(std::filesystem::path path, bool is_mine) : path_(std::move(path)), is_mine_(is_mine) {}
  ~Folder() {
    std::error_code ignored;
    if (is_mine_) std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

 private:
  std::filesystem::path path_;
  bool is_mine_;
};

}  // namespace

WholeModel::WholeModel(const RunSetup& run) {
  Communicator& world = run.mesh.world();
  const bool is_first = world.rank() == 0;
  // A kill in between leaves a name that the next start of the run deletes (remove_stale()).
  const std::filesystem::path path = run.folder.checkpoints() / ".tmp-reading";
  const Folder files(path, is_first);
  const char* stem = run.adapter ? "adapter" : "model";
  together(world, [&]() -> std::string {
    if (is_first) std::filesystem::create_directories(path);
    return "";
  });
  const std::vector<std::string> shards = together(world, [&] {
    NamedTensors weights;
    for (const SharedWeight& weight : weights_of_rank(run.trained(), run.mesh))
      weights.emplace_back(weight.name, weight.value);
    return write_shard(path, shard_name(stem, world.rank(), world.size()), weights).dump();
  });
  together(world, [&]() -> std::string {
    if (!is_first) return "";
    std::vector<nlohmann::json> all;
    for (const std::string& shard : shards) all.push_back(nlohmann::json::parse(shard));
    write_index(path, stem, all);
    return "";
  });
  together(world, [&]() -> std::string {
    read(run, path);
    return "";
  });
}

void WholeModel::read(const RunSetup& run, const std::filesystem::path& path) {
  if (!run.adapter) {
    model_ = load_model(path, *run.config, DType::f32);
    model_->store().to(run.device);
    return;
  }
  model_ = make_model(run.recipe, *run.config, {});
  load_initial_weights(run.recipe.model, *model_);
  model_->store().to(run.device);
  adapter_ = std::make_unique<Adapter>(*model_, run.adapter->shape(), 0);
  load_weights(adapter_->store(), path / "adapter.safetensors",
               [](const std::string& name) { return name; });
  adapter_->to(run.device);
}

WholeModel::~WholeModel() = default;

}  // namespace lectern
