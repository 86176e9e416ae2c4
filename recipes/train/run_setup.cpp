#include "recipes/train/run_setup.h"

#include "core/io/file.h"
#include "core/io/files.h"
#include "core/parallel.h"
#include "distributed/groups.h"
#include "distributed/world.h"
#include "nn/weights.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/log/metrics.h"
#include "recipes/machine/device.h"
#include "recipes/train/adapter_setup.h"
#include "recipes/train/curriculum.h"
#include "recipes/train/initial_weights.h"
#include "recipes/train/optimizer_setup.h"
#include "recipes/train/start.h"

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

namespace lectern {
namespace {

/// The ranks, for tensors where the training has them.
std::shared_ptr<Communicator> ranks_on(Device device, const std::shared_ptr<Communicator>& world) {
  return device.type == DeviceType::cpu || world->size() == 1 ? world
                                                              : make_nccl_group(world, device);
}

/// Throws ConfigError unless the adapter in `where` is of the weights with this hash, in `init`.
void check_same_base(const AdapterInfo& info, const std::filesystem::path& where,
                     const std::string& init, const std::string& hash) {
  if (info.base_hash == hash) return;
  fail<ConfigError>(fmt::format(
      "{}: is an adapter of the weights in {} (sha256 {}...), but model.init = \"{}\" holds "
      "others ({}...)",
      where.string(), info.base, info.base_hash.substr(0, 12), init, hash.substr(0, 12)));
}

}  // namespace

RunSetup::RunSetup(const Recipe& recipe, bool resume, const std::shared_ptr<Communicator>& world)
    : recipe(recipe),
      device(use_device(recipe.device, *world)),
      mesh(ranks_on(device, world), recipe.mesh.pp, recipe.mesh.ep),
      tokenizer(Tokenizer::load(recipe.data.tokenizer)),
      config(model_config(recipe, tokenizer)),
      placement(place_on_mesh(recipe, *config, mesh)),
      model(make_model(recipe, *config, placement.model)),
      adapter(recipe.adapts() ? make_adapter() : nullptr),
      data(recipe, *config, tokenizer),
      folder(recipe.run_dir, resume,
             is_first() ? RunFolder::Use::first_rank : RunFolder::Use::other_rank),
      optimizer(adamw_args(recipe), world,
                {.zero = recipe.mesh.zero, .bucket_bytes = recipe.mesh.bucket_bytes}),
      budget(recipe.memory_gib, device),
      saver(*model, trained(), optimizer, mesh, saver_options()) {
  check_ranks_read_the_same();
  if (!adapter) {
    model->store().to(device);
    model->store().freeze(config->prefixes_of(recipe.freeze));
  }
  add_parameters(optimizer, trained(), recipe, mesh);
  restore(resume);
  if (state.level >= data.levels())
    fail<ConfigError>(
        fmt::format("{}: the checkpoint is at level {} of the curriculum, the "
                    "recipe has {}",
                    folder.path().string(), state.level + 1, data.levels()));
  if (placement.pipeline.stages == 1 || (placement.encoder_is_apart && mesh.stage() == 0))
    features = std::make_unique<EncoderFeatures>(recipe, *model, mesh.replica(),
                                                 static_cast<int>(mesh.shape().dp));
  if (placement.model.expert_ranks > 1) experts.emplace(mesh.experts());
  if (is_first()) folder.write_config(recipe.resolved);
}

void RunSetup::check_ranks_read_the_same() const {
  if (mesh.world().size() == 1) return;
  std::string facts =
      fmt::format("{} = {}\n{} = {}\n", recipe.model.config, sha256_of(config->to_json().dump()),
                  recipe.data.tokenizer, sha256_of(tokenizer.json()));
  for (const auto& source : data.sources())
    facts += fmt::format("{} = {} samples, {} left out\n", source->describe(), source->count(),
                         source->dropped());
  check_same_on_all_ranks(mesh.world(), "data", facts);
}

CheckpointSaverOptions RunSetup::saver_options() {
  return {
      .folder = folder.checkpoints(),
      .tokenizer_json = tokenizer.json(),
      .stem = adapter ? "adapter" : "model",
      .files =
          adapter ? std::map<std::string, std::string>{{"adapter.json", adapter_json(adapter_info)}}
                  : std::map<std::string, std::string>{},
      .keep = recipe.checkpoint.keep,
      .asynchronous = recipe.checkpoint.asynchronous,
      .before_complete = [this] { log->sync(); },
      .completed =
          [this](const std::filesystem::path& path, double seconds) {
            log->say(fmt::format("saved {} (training waited {:.2f} s)", path.string(), seconds));
          },
      .at_point = {}};
}

std::unique_ptr<Adapter> RunSetup::make_adapter() {
  began_from = load_initial_weights(recipe.model, *model);
  model->store().to(device);
  adapter_info = adapter_of(recipe, *config);
  // One rank reads the base whole, for all, and once.
  adapter_info.base_hash = together(mesh.world(), [&]() -> std::string {
    if (!is_first()) return "";
    const std::string hash = weights_hash(resolve_model_folder(recipe.model.init), *config);
    if (!adapter_info.base_hash.empty())
      check_same_base(adapter_info, recipe.model.adapter, recipe.model.init, hash);
    return hash;
  })[0];
  adapter_info.base = recipe.model.init;
  auto out =
      std::make_unique<Adapter>(*model, adapter_info.shape, static_cast<std::uint64_t>(recipe.seed),
                                recipe.lora ? recipe.lora->dropout : 0.0);
  out->to(device);
  return out;
}

void RunSetup::load_trained(const std::filesystem::path& checkpoint) {
  if (is_adapter_folder(checkpoint) != (adapter != nullptr))
    fail<ConfigError>(
        fmt::format("{}: holds {}, but the recipe trains {} ([lora] or model.adapter says which)",
                    checkpoint.string(), adapter ? "a model" : "an adapter",
                    adapter ? "an adapter" : "the model"));
  if (!adapter) {
    load_weights(*model, checkpoint);
    return;
  }
  const AdapterInfo saved = read_adapter_info(checkpoint, *config);
  check_same_base(saved, checkpoint, recipe.model.init, adapter_info.base_hash);
  if (saved.shape != adapter_info.shape)
    fail<ConfigError>(
        fmt::format("{}: has {} pairs, the first of rank {}; [lora] says {}, of rank {}",
                    checkpoint.string(), saved.shape.size(), saved.shape.begin()->second.rank,
                    adapter_info.shape.size(), adapter_info.shape.begin()->second.rank));
  load_adapter(*adapter, checkpoint, *config);
  adapter->to(device);
}

void RunSetup::restore(bool resume) {
  state.stage = recipe.stage;
  state.seed = recipe.seed;
  if (is_first()) remove_stale(folder.checkpoints());
  std::filesystem::path newest;
  if (resume) newest = checkpoint_to_resume(mesh.world(), folder.checkpoints());
  if (newest.empty()) {
    if (resume && is_first()) begin_anew(folder);
    if (!adapter) {
      began_from = load_initial_weights(recipe.model, *model);
    } else if (!recipe.model.adapter.empty()) {
      load_adapter(*adapter, recipe.model.adapter, *config);
      adapter->to(device);
      began_from = fmt::format("the adapter {} on {}", recipe.model.adapter, began_from);
    } else {
      began_from = fmt::format("a new adapter on {}", began_from);
    }
    return;
  }
  const std::int64_t step = checkpoint_step(newest.filename().string()).value_or(0);
  const bool is_changed = is_first() && note_changed_settings(folder, recipe, step);
  state = load_training_state(
      newest, state, trained(), [&] { load_trained(newest); }, optimizer);
  // Of a run that went on from here before, the older recipe is that of the steps.
  if (const auto kept = changed_config(folder, step); is_changed && !exists(kept))
    write_file(kept, read_file(folder.config()));
  began_from = newest.string();
  std::erase_if(state.selection_bias, [&](const auto& bias) {  // of layers of other stages
    return !placement.has_unit(config->first_decoder_unit() + bias.first);
  });
  saved_step = state.step;
}

void RunSetup::open_level() {
  loader.reset();  // its threads still make batches of the level before
  LoaderOptions options = loader_options(recipe, *config);
  options.seed = level_seed(recipe, state);
  options.first_position = state.level_position;
  options.rank = mesh.replica();
  options.ranks = static_cast<int>(mesh.shape().dp);
  if (recipe.encoder_cache.enabled && placement.encoder_is_apart) options.image_token_work = 0;
  if (features)
    options.is_cached = [this](const std::string& key) { return features->is_cached(key); };
  else if (placement.pieces.front().begin >= config->first_decoder_unit())
    options.is_cached = [](const std::string&) { return true; };  // another stage has the encoder
  loader = std::make_unique<Loader>(
      data.training(state.level), options,
      LoaderState{state.loader_position, static_cast<std::uint64_t>(state.step)});
  validation = data.validation(state.level);
}

void RunSetup::open_log() {
  log.emplace(recipe, is_first() ? &folder : nullptr, state.step);
  std::int64_t trained = 0;
  for (const auto& [name, variable] : this->trained().trainable())
    trained += variable.value().numel();
  const std::int64_t ranks = mesh.world().size();
  log->say(fmt::format(
      "{}: {} parameters, {} trained; {} samples a step; step {} of {}; {}{} "
      "threads",
      folder.path().string(), format_count(static_cast<double>(model->store().parameter_count())),
      format_count(static_cast<double>(trained)), recipe.batch.global_size, state.step,
      recipe.steps, ranks > 1 ? fmt::format("{} ranks of ", ranks) : "", thread_count()));
  log->say(fmt::format("{} from {}", state.step > 0 ? "goes on" : "begins", began_from));
  if (state.step == 0 && recipe.stage > 1 && began_from == "random weights" && is_first())
    spdlog::warn("stage {} begins from random weights: model.init names none", recipe.stage);
  if (is_first()) {
    note_large_views(recipe, *config);
    for (const std::string& remark : data.remarks()) log->say(remark);
    const std::string shared = data.shared_with_validation();
    if (!shared.empty()) spdlog::warn("{}", shared);
  }
  if (budget.plan()) log->say(budget.announcement());
}

}  // namespace lectern
