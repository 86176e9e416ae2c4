// A job of an ablation that changes a training recipe: its runs one after the other, then held-out
// samples read and scored.
#include "core/error.h"
#include "core/io/file.h"
#include "core/io/files.h"
#include "data/samples/sample.h"
#include "recipes/ablate/ablate.h"
#include "recipes/ablate/content.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/evaluate/evaluate.h"
#include "recipes/log/metrics.h"
#include "recipes/train/trainer.h"
#include "recipes/train/training_data.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>

namespace lectern {
namespace {

/// Characters of the shortest text of each group that is scored by itself.
constexpr std::int64_t kLengthGroups[] = {1, 4, 7, 10};

const TrainedVariant& variant_of(const TrainingAblation& training, const std::string& name) {
  const auto found =
      std::find_if(training.variants.begin(), training.variants.end(),
                   [&](const TrainedVariant& variant) { return variant.name == name; });
  if (found == training.variants.end())
    fail<ConfigError>(fmt::format("ablate: no variant is called \"{}\"", name));
  return *found;
}

/// Whether the variant's first run is the one that run_shared_start() makes.
bool shares_start(const TrainingAblation& training, const TrainedVariant& variant) {
  return !training.then.empty() && variant.set.empty();
}

/// What every run of the ablation is trained with, over the recipe.
std::vector<std::string> run_settings(const AblationRecipe& recipe, std::int64_t seed,
                                      std::int64_t steps, const std::filesystem::path& folder) {
  const TrainingAblation& training = recipe.training;
  std::vector<std::string> out = {
      fmt::format("run_dir={}", folder.string()),
      fmt::format("seed={}", seed),
      fmt::format("steps={}", steps),
      fmt::format("optimizer.warmup_steps={}", steps / 20),
      fmt::format("evaluation.every={}", training.curve_every),
      fmt::format("evaluation.samples={}", training.curve_samples),
      "checkpoint.every=0",
      "checkpoint.keep=1",
      "log.tensorboard=false",
      "log.progress_seconds=3600",
      "encoder_cache.enabled=false"};  // a cache on disk would tell variants apart by time only
  out.insert(out.end(), training.set.begin(), training.set.end());
  return out;
}

/// The settings of run 0, 1, ... of a job; `previous` is the run that it goes on from.
std::vector<std::string> settings_of(const AblationRecipe& recipe, const TrainedVariant& variant,
                                     std::size_t run, std::int64_t seed,
                                     const std::filesystem::path& folder,
                                     const std::filesystem::path& previous) {
  const TrainingAblation& training = recipe.training;
  const std::int64_t steps = run == 0 ? training.steps : training.then[run - 1].steps;
  std::vector<std::string> out = run_settings(recipe, seed, steps, folder);
  if (run > 0) {
    const FollowingRun& following = training.then[run - 1];
    out.push_back(fmt::format("stage={}", variant.stages[run - 1]));
    out.push_back(fmt::format("model.init={}", previous.string()));
    out.insert(out.end(), following.set.begin(), following.set.end());
  }
  out.insert(out.end(), variant.set.begin(), variant.set.end());
  return out;
}

Recipe checked_recipe(const AblationRecipe& recipe, const std::vector<std::string>& settings) {
  return load_recipe(recipe.training.recipe, settings);
}

/// Trains, or throws when a signal stopped it: half a run has no result.
void train_whole(const Recipe& recipe) {
  std::filesystem::remove_all(recipe.run_dir);
  if (train(recipe, false).stopped_by != 0)
    fail<Error>(fmt::format("ablate: {} was stopped", recipe.run_dir.string()));
}

/// Holds an advisory lock on a file while it lives.
class FileLock {
 public:
  explicit FileLock(const std::filesystem::path& path)
      : fd_(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644)) {
    if (fd_ < 0 || ::flock(fd_, LOCK_EX) != 0)
      fail<IoError>(fmt::format("{}: cannot lock", path.string()));
  }
  ~FileLock() { ::close(fd_); }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int fd_;
};

std::string start_settings(const AblationRecipe& recipe, std::int64_t seed,
                           const std::filesystem::path& folder) {
  const Recipe start =
      checked_recipe(recipe, run_settings(recipe, seed, recipe.training.steps, folder));
  return start.resolved + "# inputs " + content_hash(inputs_of(start)) + "\n";
}

/// The records of all runs as those of one: steps and seconds are counted through.
class JoinedRecords {
 public:
  void add(const std::filesystem::path& metrics) {
    std::int64_t last = 0;
    for (MetricFields record : read_metrics(metrics)) {
      last = record["step"].get<std::int64_t>();
      if (record.contains("seconds") && record["seconds"].is_number())
        seconds_ += record["seconds"].get<double>();
      record["train_seconds"] = seconds_;
      record.erase("step");
      records_.emplace_back(steps_ + last, std::move(record));
    }
    steps_ += last;
  }
  void write(const std::filesystem::path& path) const {
    MetricsWriter out(path, 0);
    for (const auto& [step, record] : records_) out.write(step, record);
  }
  double seconds() const { return seconds_; }

 private:
  std::vector<std::pair<std::int64_t, MetricFields>> records_;
  std::int64_t steps_ = 0;
  double seconds_ = 0;
};

/// Error rates of texts by their length: what a fixed number of tokens has to carry.
nlohmann::ordered_json by_length(const std::vector<ReadSample>& samples,
                                 const std::vector<PageScore>& scores, const Tokenizer& tokenizer) {
  auto out = nlohmann::ordered_json::array();
  for (std::size_t group = 0; group < std::size(kLengthGroups); ++group) {
    const std::int64_t from = kLengthGroups[group];
    const bool is_last = group + 1 == std::size(kLengthGroups);
    const std::int64_t to = is_last ? INT64_MAX : kLengthGroups[group + 1];
    double edits = 0, characters = 0, tokens = 0, count = 0;
    for (std::size_t i = 0; i < scores.size(); ++i) {
      if (scores[i].truth_length < from || scores[i].truth_length >= to) continue;
      edits += static_cast<double>(scores[i].edits);
      characters += static_cast<double>(scores[i].truth_length);
      tokens += static_cast<double>(tokenizer.encode(samples[i].truth).size());
      ++count;
    }
    if (count == 0) continue;
    out.push_back({{"from", from},
                   {"samples", count},
                   {"characters", characters / count},
                   {"text_tokens", tokens / count},
                   {"cer", edits / characters}});
  }
  return out;
}

/// Held-out samples of the recipe's last level, read by the model that the runs ended with.
nlohmann::ordered_json held_out(const Recipe& recipe, const TrainingAblation& training) {
  const LoadedModel loaded = load_model_folder(recipe.run_dir);
  const ModelConfig& config = loaded.model->config();
  const TrainingData data(recipe, config, loaded.tokenizer);
  EvaluationArgs args;
  args.samples = training.evaluation_samples;
  args.with_loss = true;
  args.reader.max_new_tokens = recipe.evaluation.max_new_tokens;
  std::vector<ReadSample> samples;
  std::vector<PageScore> pages;
  double loss = 0, tokens = 0;
  for (const ValidationSet& set : data.validation(data.levels() - 1)) {
    EvaluationResult result = evaluate(*loaded.model, loaded.tokenizer, *set.samples, args);
    loss += result.loss_sum;
    tokens += static_cast<double>(result.trained_tokens);
    for (ReadSample& sample : result.samples) samples.push_back(std::move(sample));
    for (PageScore& page : result.scores.pages) pages.push_back(std::move(page));
  }
  if (pages.empty())
    fail<ConfigError>(
        fmt::format("{}: must have held-out samples (data.validation_sources), got "
                    "none",
                    training.recipe));
  nlohmann::ordered_json out;
  out["lengths"] = by_length(samples, pages, loaded.tokenizer);
  const Scores scores = summarize(std::move(pages));
  out["loss"] = loss / std::max(1.0, tokens);
  out["cer"] = scores.cer;
  out["edit_distance"] = scores.edit_distance;
  out["repetition_rate"] = scores.repetition_rate;
  out["exact"] = static_cast<double>(scores.exact) / static_cast<double>(scores.pages.size());
  out["held_out_samples"] = scores.pages.size();
  out["visual_tokens"] = config.visual_tokens(config.reading.global_size);
  out["decoder_tokens"] = config.decoder_tokens(config.reading.global_size);
  out["parameters"] = loaded.model->store().parameter_count();
  return out;
}

}  // namespace

std::filesystem::path run_shared_start(const AblationRecipe& recipe, std::int64_t seed) {
  const auto folder = recipe.out / "starts" / fmt::format("s{}", seed);
  std::filesystem::create_directories(folder.parent_path());
  const FileLock lock(folder.string() + ".lock");
  const auto stamp = folder.string() + ".settings";
  const std::string settings = start_settings(recipe, seed, folder);
  if (std::filesystem::exists(stamp) && read_file(stamp) == settings &&
      std::filesystem::exists(folder))
    return folder;
  std::filesystem::remove(stamp);
  train_whole(checked_recipe(recipe, run_settings(recipe, seed, recipe.training.steps, folder)));
  write_file(stamp, settings);
  return folder;
}

std::string training_settings(const AblationRecipe& recipe, const AblationJob& job) {
  const TrainingAblation& training = recipe.training;
  const Recipe first =
      checked_recipe(recipe, run_settings(recipe, job.seed, training.steps, "run"));
  std::string all = first.resolved + content_hash(inputs_of(first));
  if (job.task == "training") {
    const TrainedVariant& variant = variant_of(training, job.variant);
    for (std::size_t run = 0; run <= training.then.size(); ++run) {
      const Recipe now =
          checked_recipe(recipe, settings_of(recipe, variant, run, job.seed, "run", "previous"));
      all += now.resolved + content_hash(inputs_of(now));
    }
  }
  return fmt::format("{} {} samples {}", training.recipe, training.evaluation_samples,
                     sha256_of(all).substr(0, 16));
}

nlohmann::ordered_json run_training_job(const AblationRecipe& recipe, const AblationJob& job,
                                        const std::filesystem::path& folder) {
  const TrainingAblation& training = recipe.training;
  const TrainedVariant& variant = variant_of(training, job.variant);
  JoinedRecords records;
  std::filesystem::path previous;
  std::size_t run = 0;
  if (shares_start(training, variant)) {
    previous = run_shared_start(recipe, job.seed);
    records.add(previous / "metrics.jsonl");
    run = 1;
  }
  nlohmann::ordered_json out;
  for (; run <= training.then.size(); ++run) {
    const auto here = folder / fmt::format("run{}", run);
    const Recipe now =
        checked_recipe(recipe, settings_of(recipe, variant, run, job.seed, here, previous));
    train_whole(now);
    records.add(here / "metrics.jsonl");
    if (run == training.then.size()) out = held_out(now, training);
    if (run > 1 || (run == 1 && !shares_start(training, variant)))
      std::filesystem::remove_all(previous);  // checkpoints of dozens of jobs are not wanted
    previous = here;
  }
  std::filesystem::remove_all(previous);
  records.write(folder / "metrics.jsonl");
  out["diverged"] = false;
  out["train_seconds"] = records.seconds();
  return out;
}

}  // namespace lectern
