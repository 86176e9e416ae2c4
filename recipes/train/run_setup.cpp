#include "recipes/train/run_setup.h"

#include "core/parallel.h"
#include "distributed/groups.h"
#include "distributed/world.h"
#include "recipes/log/metrics.h"
#include "recipes/machine/device.h"
#include "recipes/train/curriculum.h"
#include "recipes/train/initial_weights.h"
#include "recipes/train/optimizer_setup.h"

namespace lectern {
namespace {

/// The ranks, for tensors where the training has them.
std::shared_ptr<Communicator> ranks_on(Device device, const std::shared_ptr<Communicator>& world) {
  return device.type == DeviceType::cpu || world->size() == 1 ? world
                                                              : make_nccl_group(world, device);
}

}  // namespace

RunSetup::RunSetup(const Recipe& recipe, bool resume, const std::shared_ptr<Communicator>& world)
    : recipe(recipe),
      device(use_device(recipe.device, *world)),
      mesh(ranks_on(device, world), recipe.mesh.pp, recipe.mesh.ep),
      tokenizer(Tokenizer::load(recipe.data.tokenizer)),
      config(model_config(recipe, tokenizer)),
      placement(place_on_mesh(recipe, *config, mesh)),
      model(config->make(static_cast<std::uint64_t>(recipe.seed), DType::f32,
                         ParameterValues::initialised, placement.model)),
      data(recipe, *config, tokenizer),
      folder(recipe.run_dir, resume || !is_first()),
      optimizer(adamw_args(recipe), world,
                {.zero = recipe.mesh.zero, .bucket_bytes = recipe.mesh.bucket_bytes}),
      budget(recipe.memory_gib, device),
      saver(*model, optimizer, mesh, saver_options()) {
  model->store().to(device);
  model->store().freeze(config->prefixes_of(recipe.freeze));
  add_parameters(optimizer, model->store(), recipe, placement, mesh);
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

CheckpointSaverOptions RunSetup::saver_options() {
  return {
      .folder = folder.checkpoints(),
      .tokenizer_json = tokenizer.json(),
      .keep = recipe.checkpoint.keep,
      .asynchronous = recipe.checkpoint.asynchronous,
      .before_complete = [this] { log->sync(); },
      .completed =
          [this](const std::filesystem::path& path, double seconds) {
            log->say(fmt::format("saved {} (training waited {:.2f} s)", path.string(), seconds));
          },
      .at_point = {}};
}

void RunSetup::restore(bool resume) {
  state.stage = recipe.stage;
  state.seed = recipe.seed;
  std::string newest;
  if (is_first()) {
    remove_stale(folder.checkpoints());
    if (const auto entry = resume ? newest_complete(folder.checkpoints()) : std::nullopt)
      newest = entry->path.string();
  }
  newest = all_gather_text(mesh.world(), newest)[0];
  if (newest.empty()) {
    load_initial_weights(recipe.model, *model);
    return;
  }
  state = load_training_state(newest, state, *model, optimizer);
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
  for (const auto& [name, variable] : model->store().trainable())
    trained += variable.value().numel();
  const std::int64_t ranks = mesh.world().size();
  log->say(fmt::format(
      "{}: {} parameters, {} trained; {} samples a step; step {} of {}; {}{} "
      "threads",
      folder.path().string(), format_count(static_cast<double>(model->store().parameter_count())),
      format_count(static_cast<double>(trained)), recipe.batch.global_size, state.step,
      recipe.steps, ranks > 1 ? fmt::format("{} ranks of ", ranks) : "", thread_count()));
  if (budget.plan()) log->say(budget.announcement());
}

}  // namespace lectern
