// The jobs of an ablation, side by side, and what is written after each.
#include "core/error.h"
#include "core/io/file.h"
#include "core/io/folder_lock.h"
#include "core/io/process.h"
#include "core/stopwatch.h"
#include "core/threads.h"
#include "recipes/ablate/ablate.h"
#include "recipes/ablate/report.h"
#include "recipes/log/progress.h"
#include "recipes/machine/interrupt.h"

#include <fmt/format.h>

#include <mutex>
#include <optional>
#include <thread>

namespace lectern {
namespace {

using nlohmann::json;

/// The job's result, if it was made with the recipe's settings.
std::optional<json> result_of(const AblationRecipe& recipe, const AblationJob& job) {
  const auto path = recipe.out / "jobs" / job.id / "result.json";
  if (!std::filesystem::exists(path)) return std::nullopt;
  json result = parse_json(read_file(path), path.string());
  if (!result.is_object() || result.value("settings", "") != job_settings(recipe, job))
    return std::nullopt;
  return result;
}

void write_report(const AblationRecipe& recipe, const std::vector<AblationJob>& jobs) {
  std::vector<json> results;
  for (const AblationJob& job : jobs)
    if (auto result = result_of(recipe, job)) results.push_back(std::move(*result));
  const auto tables = ablation_tables(recipe, results);
  json all = results;
  write_file(recipe.out / "results.json", all.dump(1) + "\n");
  write_file(recipe.out / "table.md", ablation_markdown(recipe, tables));
  write_file(recipe.out / "report.html", ablation_html(recipe, tables));
}

/// Hands out jobs to threads, runs each as a process, and says how far it is.
class Schedule {
 public:
  Schedule(const AblationRecipe& recipe, const std::filesystem::path& program,
           const std::vector<std::string>& arguments, std::vector<AblationJob> jobs)
      : recipe_(recipe),
        program_(program),
        arguments_(arguments),
        jobs_(std::move(jobs)),
        progress_({}) {
    for (const AblationJob& job : jobs_)
      if (!result_of(recipe, job)) {
        missing_.push_back(job);
        cost_left_ += job.cost;
      }
    progress_.say(fmt::format("{}: {} of {} jobs to run", recipe.out.string(), missing_.size(),
                              jobs_.size()));
  }

  std::int64_t run() {
    const auto cores = static_cast<std::int64_t>(std::max(1u, std::thread::hardware_concurrency()));
    const std::int64_t workers = recipe_.parallel > 0 ? recipe_.parallel : cores;
    const std::int64_t threads = std::max<std::int64_t>(1, cores / workers);
    started_ = now();
    const auto work = [this, threads] {
      while (const AblationJob* job = next()) run_job(*job, threads);
    };
    std::vector<std::thread> pool = start_threads(workers - 1, work);
    work();
    for (std::thread& thread : pool) thread.join();
    write_report(recipe_, jobs_);
    return failed_;
  }

 private:
  const AblationJob* next() {
    const std::lock_guard lock(mutex_);
    if (at_ == missing_.size() || stop_requested()) return nullptr;
    return &missing_[at_++];
  }

  void run_job(const AblationJob& job, std::int64_t threads) {
    std::vector<std::string> argv = {program_.string(), "ablate"};
    argv.insert(argv.end(), arguments_.begin(), arguments_.end());
    for (const std::string& more :
         {std::string("--job"), job.id, std::string("--threads"), std::to_string(threads)})
      argv.push_back(more);
    ProcessLimits limits;
    limits.seconds = 1e7;
    limits.memory_bytes = std::uint64_t{1} << 46;
    std::string problem;
    try {
      const ProcessResult result = run_process(argv, job.id, limits);
      if (result.exit_status != 0) problem = result.errors;
    } catch (const lectern::Error& error) {
      problem = error.what();
    }
    const std::lock_guard lock(mutex_);
    finish(job, problem);
  }

  void finish(const AblationJob& job, const std::string& problem) {
    ++finished_;
    cost_left_ -= job.cost;
    cost_done_ += job.cost;
    const double left = (now() - started_) / cost_done_ * cost_left_;
    const auto result = result_of(recipe_, job);
    if (!result) {
      if (!stop_requested()) ++failed_;
      progress_.say(fmt::format("[{}/{}] {} failed: {}", finished_, missing_.size(), job.id,
                                problem.empty() ? "it left no result" : problem));
      return;
    }
    const double loss = result->at("loss").is_number() ? result->at("loss").get<double>() : NAN;
    progress_.say(fmt::format("[{}/{}] {}: loss {:.4f}, {}; left {}", finished_, missing_.size(),
                              job.id, loss, format_duration(result->value("seconds", 0.0)),
                              format_duration(left)));
    write_report(recipe_, jobs_);
  }

  const AblationRecipe& recipe_;
  std::filesystem::path program_;
  std::vector<std::string> arguments_;
  std::vector<AblationJob> jobs_, missing_;
  Progress progress_;
  std::mutex mutex_;
  std::size_t at_ = 0, finished_ = 0;
  std::int64_t failed_ = 0;
  double started_ = 0, cost_left_ = 0, cost_done_ = 0;
};

void run_script(const std::vector<std::string>& argv, const std::string& name) {
  ProcessLimits limits;
  limits.seconds = 1800;
  limits.memory_bytes = std::uint64_t{1} << 46;
  run_process_or_fail(argv, name, limits);
}

/// Makes the data of a training, where the recipe says how and it is not there yet.
void fetch_data(const TrainingAblation& training) {
  if (!training.enabled || training.fetch.empty() || std::filesystem::exists(training.needs))
    return;
  run_script({"bash", "-c", training.fetch}, training.fetch);
}

/// Fills the text folder, where the recipe says how and it is not there yet.
void fetch_text(const TextAblation& text) {
  if (!text.enabled || text.fetch.empty()) return;
  if (std::filesystem::is_directory(text.folder))
    for (const auto& entry : std::filesystem::directory_iterator(text.folder))
      if (entry.path().extension() == ".txt") return;
  run_script({"bash", "-c", text.fetch + " \"$0\"", text.folder}, text.fetch);
}

}  // namespace

std::int64_t run_ablation(const AblationRecipe& recipe, const std::filesystem::path& program,
                          const std::vector<std::string>& arguments) {
  std::filesystem::create_directories(recipe.out);
  const FolderLock lock(recipe.out, "lectern ablate");
  fetch_text(recipe.text);
  fetch_data(recipe.training);
  return Schedule(recipe, program, arguments, ablation_jobs(recipe)).run();
}

}  // namespace lectern
