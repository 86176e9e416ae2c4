#include "recipes/train/whole_model.h"

#include "core/error.h"
#include "distributed/world.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/checkpoint/weight_shards.h"

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

WholeModel::WholeModel(const OcrModel& part, const Mesh& mesh,
                       const std::filesystem::path& folder) {
  Communicator& world = mesh.world();
  const bool is_first = world.rank() == 0;
  // A kill in between leaves a name that the next start of the run deletes (remove_stale()).
  const std::filesystem::path path = folder / ".tmp-reading";
  const Folder files(path, is_first);
  together(world, [&]() -> std::string {
    if (is_first) std::filesystem::create_directories(path);
    return "";
  });
  const std::vector<std::string> shards = together(world, [&] {
    NamedTensors weights;
    for (const SharedWeight& weight : weights_of_rank(part.store(), mesh))
      weights.emplace_back(weight.name, weight.value);
    return write_shard(path, shard_name("model", world.rank(), world.size()), weights).dump();
  });
  together(world, [&]() -> std::string {
    if (!is_first) return "";
    std::vector<nlohmann::json> all;
    for (const std::string& shard : shards) all.push_back(nlohmann::json::parse(shard));
    write_index(path, "model", all);
    return "";
  });
  together(world, [&]() -> std::string {
    model_ = load_model(path, part.config(), DType::f32);
    model_->store().to(part.store().device());
    return "";
  });
}

WholeModel::~WholeModel() = default;

}  // namespace lectern
