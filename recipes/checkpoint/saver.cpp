#include "recipes/checkpoint/saver.h"

#include "core/error.h"
#include "core/stopwatch.h"
#include "distributed/world.h"
#include "recipes/checkpoint/weight_shards.h"
#include "recipes/machine/versions.h"

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <exception>
#include <map>
#include <new>
#include <system_error>
#include <utility>
#include <vector>

namespace lectern {
namespace {

/// Adds the time until it goes to a sum.
class AddedTime {
 public:
  explicit AddedTime(double& sum) : sum_(sum) {}
  ~AddedTime() { sum_ += watch_.seconds(); }
  AddedTime(const AddedTime&) = delete;
  AddedTime& operator=(const AddedTime&) = delete;

 private:
  double& sum_;
  Stopwatch watch_;
};

/// The cores belong to training: this thread takes what they leave. Not while it copies: training
/// may come to wait for that.
void step_back() {
  constexpr int kNice = 10;
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)), kNice);
}

/// What the shards of all ranks have to say in state.json.
struct ShardSummary {
  std::vector<nlohmann::json> weights, moments;
  std::map<std::string, std::int64_t> steps;
  std::map<std::int64_t, bool> bias_layers;
};

ShardSummary summary_of(const std::vector<std::string>& shards) {
  ShardSummary out;
  for (const std::string& text : shards) {
    const nlohmann::json shard = nlohmann::json::parse(text);
    out.weights.push_back(shard["model"]);
    out.moments.push_back(shard["optimizer"]);
    out.steps.merge(shard["steps"].get<std::map<std::string, std::int64_t>>());
    for (const nlohmann::json& layer : shard["bias_layers"])
      out.bias_layers[layer.get<std::int64_t>()] = true;
  }
  return out;
}

nlohmann::json state_json(const ShardSummary& shards, const RunState& state,
                          const MeshShape& mesh) {
  nlohmann::json layers = nlohmann::json::array();
  for (const auto& [layer, is_there] : shards.bias_layers) layers.push_back(layer);
  return {{"step", state.step},
          {"loader_position", state.loader_position},
          {"curriculum",
           {{"level", state.level},
            {"step", state.level_step},
            {"loader_position", state.level_position}}},
          {"stage", state.stage},
          {"seed", state.seed},
          {"random", "Philox4x32-10; streams are named, positions follow from step and sample"},
          {"schedule_step", state.step},
          {"optimizer_steps", shards.steps},
          {"selection_bias_layers", layers},
          {"git_revision", git_revision()},
          {"mesh", {{"pp", mesh.pp}, {"dp", mesh.dp}, {"ep", mesh.ep}}}};
}

}  // namespace

/// What one rank writes.
struct CheckpointSaver::Shard {
  std::shared_ptr<TensorCopies> tensors;  // weights, and from `weights` on moments
  std::size_t weights = 0;
  std::map<std::string, std::int64_t> steps;
  std::vector<std::int64_t> bias_layers;
};

CheckpointSaver::CheckpointSaver(const OcrModel& model, const ParameterStore& saved,
                                 const ParallelAdamW& optimizer, const Mesh& mesh,
                                 CheckpointSaverOptions options)
    : model_(model),
      saved_(saved),
      optimizer_(optimizer),
      mesh_(mesh),
      options_(std::move(options)) {}

CheckpointSaver::~CheckpointSaver() = default;

CheckpointSaver::Shard CheckpointSaver::shard_of_rank(bool apart) const {
  Shard out;
  std::vector<TensorCopies::Source> sources;
  for (const SharedWeight& weight : weights_of_rank(saved_, mesh_))
    sources.push_back({weight.name, weight.value, apart && weight.is_trained});
  out.weights = sources.size();
  for (const MomentPiece& piece : optimizer_.state()) {
    const std::string name =
        piece.is_whole ? piece.parameter : piece_name(piece.parameter, piece.begin, piece.end);
    sources.push_back({name + ".exp_avg", piece.exp_avg, apart});
    sources.push_back({name + ".exp_avg_sq", piece.exp_avg_sq, apart});
    out.steps[piece.parameter] = piece.steps;
  }
  if (mesh_.replica() == 0)
    for (const auto& [layer, bias] : state_.selection_bias) {
      sources.push_back({bias_name(layer), bias, false});
      out.bias_layers.push_back(layer);
    }
  out.tensors = std::make_shared<TensorCopies>(sources);
  return out;
}

CheckpointSaver::Shard CheckpointSaver::shard_put_aside(bool& apart) const {
  try {
    if (apart) return shard_of_rank(true);
  } catch (const MemoryError& error) {
    spdlog::warn("{}; this checkpoint is written while training waits", error.what());
  } catch (const std::bad_alloc&) {
    spdlog::warn("checkpoint: no memory for copies; it is written while training waits");
  }
  apart = false;
  return shard_of_rank(false);
}

std::string CheckpointSaver::write_shard_files(const std::filesystem::path& path,
                                               const Shard& shard, bool behind) const {
  const int rank = mesh_.world().rank(), ranks = mesh_.world().size();
  point("started");
  shard.tensors->work();
  shard.tensors->wait();
  if (behind) step_back();
  point("copied");
  const auto& all = shard.tensors->tensors();
  const auto middle = all.begin() + static_cast<std::ptrdiff_t>(shard.weights);
  const nlohmann::json out = {
      {"model", write_shard(path, shard_name(options_.stem, rank, ranks), {all.begin(), middle})},
      {"optimizer", write_shard(path, shard_name("optimizer", rank, ranks), {middle, all.end()})},
      {"steps", shard.steps},
      {"bias_layers", shard.bias_layers}};
  point("written");
  return out.dump();
}

std::string CheckpointSaver::complete(const std::vector<std::string>& shards, bool behind) {
  if (behind) step_back();
  const ShardSummary all = summary_of(shards);
  for (const auto* files : {&all.weights, &all.moments})
    for (const nlohmann::json& file : *files)
      writer_->set_checksum(file["file"].get<std::string>(), file["checksum"].get<std::uint32_t>());
  write_index(writer_->path(), options_.stem, all.weights);
  write_index(writer_->path(), "optimizer", all.moments);
  writer_->add("config.json", model_.config().to_json().dump(2) + "\n");
  writer_->add("tokenizer.json", options_.tokenizer_json);
  for (const auto& [name, bytes] : options_.files) writer_->add(name, bytes);
  writer_->add("state.json", state_json(all, state_, mesh_.shape()).dump(2) + "\n");
  if (options_.before_complete) options_.before_complete();
  return writer_->commit(options_.keep).string();
}

void CheckpointSaver::start(Work work, bool behind) {
  if (behind) {
    try {
      work_ = std::async(std::launch::async, [work]() mutable {
        std::string out = work(true);
        work = nullptr;  // gives the copies' memory back here, not on the thread that trains
        return out;
      });
      return;
    } catch (const std::system_error& error) {
      spdlog::warn("checkpoint: no thread to write behind ({}); training waits", error.what());
    }
  }
  work_ = std::async(std::launch::deferred, [work = std::move(work)] { return work(false); });
  work_.wait();  // here and now: what it reads may change as soon as begin() has returned
}

void CheckpointSaver::begin(const RunState& state) {
  finish();
  seconds_ = 0;
  state_ = state;
  for (auto& [layer, bias] : state_.selection_bias) bias = bias.clone();
  {
    const AddedTime waiting(seconds_);
    const std::filesystem::path path = together(mesh_.world(), [&]() -> std::string {
      if (mesh_.world().rank() != 0) return "";
      writer_.emplace(options_.folder, state_.step);
      writer_->at_point = options_.at_point;
      return writer_->path().string();
    })[0];
    bool apart = options_.asynchronous;
    const Shard shard = shard_put_aside(apart);
    copies_ = shard.tensors;
    phase_ = Phase::writing;
    start([this, path, shard](bool behind) { return write_shard_files(path, shard, behind); },
          apart);
  }
  if (!options_.asynchronous) finish();
}

void CheckpointSaver::before_update() {
  if (!copies_) return;
  const AddedTime waiting(seconds_);
  copies_->finish();
  copies_.reset();
}

bool CheckpointSaver::is_busy() const {
  return work_.valid() && work_.wait_for(std::chrono::seconds(0)) != std::future_status::ready;
}

void CheckpointSaver::next_phase() {
  std::vector<std::string> said;
  try {
    said = together(mesh_.world(), [&] { return work_.valid() ? work_.get() : std::string(); });
  } catch (...) {
    phase_ = Phase::idle;
    copies_.reset();
    writer_.reset();  // no rank writes any more: what is there of the checkpoint goes
    throw;
  }
  if (phase_ == Phase::completing) {
    phase_ = Phase::idle;
    writer_.reset();
  } else {
    phase_ = Phase::completing;
    copies_.reset();
    if (writer_)
      start([this, shards = std::move(said)](bool behind) { return complete(shards, behind); },
            options_.asynchronous);
  }
}

void CheckpointSaver::advance() {
  if (phase_ == Phase::idle) return;
  const std::filesystem::path path = options_.folder / checkpoint_name(state_.step);
  {
    const AddedTime waiting(seconds_);
    next_phase();
  }
  if (phase_ == Phase::idle && options_.completed) options_.completed(path, seconds_);
}

void CheckpointSaver::finish() {
  while (phase_ != Phase::idle) {
    if (work_.valid()) {
      const AddedTime waiting(seconds_);
      work_.wait();
    }
    advance();
  }
}

void CheckpointSaver::finish_quietly() noexcept {
  try {
    finish();
  } catch (const std::exception&) {
  }
}

}  // namespace lectern
