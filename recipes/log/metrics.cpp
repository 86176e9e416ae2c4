#include "recipes/log/metrics.h"

#include "core/error.h"
#include "core/io/file.h"
#include "recipes/checkpoint/folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

namespace lectern {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 7> kWallClock = {"seconds",
                                                        "peak_bytes",
                                                        "tokens_per_second",
                                                        "samples_per_second",
                                                        "memory_predicted_bytes",
                                                        "blocks_kept",
                                                        "blocks_recomputed"};

std::string dump(const MetricFields& record) {
  return record.dump(-1, ' ', false, MetricFields::error_handler_t::replace);
}

MetricFields parse_line(std::string_view line) {
  // Nothing of ours nests: depth 2 keeps hostile lines off the parser's stack.
  return MetricFields::parse(
      line.begin(), line.end(),
      [](int depth, MetricFields::parse_event_t, MetricFields&) { return depth <= 2; }, false);
}

bool is_record(const MetricFields& record) {
  return record.is_object() && record.contains("step") && record["step"].is_number_integer();
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const auto end = text.find('\n');
    out.push_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return out;
}

[[noreturn]] void fail_system(const fs::path& path, std::string_view what) {
  fail<IoError>(fmt::format("{}: cannot {}: {}", path.string(), what, std::strerror(errno)));
}

}  // namespace

bool is_wall_clock_field(std::string_view name) {
  return std::find(kWallClock.begin(), kWallClock.end(), name) != kWallClock.end();
}

std::string deterministic_view(std::string_view line) {
  const MetricFields record = parse_line(line);
  if (!record.is_object()) fail<IoError>("deterministic_view: a line must be a JSON object");
  MetricFields out = MetricFields::object();
  for (const auto& [key, value] : record.items())
    if (!is_wall_clock_field(key)) out[key] = value;
  return dump(out);
}

MetricsWriter::MetricsWriter(const fs::path& path, std::int64_t resume_step, bool wall_clock)
    : path_(path), wall_clock_(wall_clock) {
  std::string kept;
  if (resume_step > 0 && fs::exists(path)) {
    const std::string text = read_file(path);
    const auto lines = lines_of(text);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      const MetricFields record = parse_line(lines[i]);
      if (!is_record(record)) {
        if (i + 1 < lines.size()) ++broken_lines_;
        continue;
      }
      const auto step = record["step"].get<std::int64_t>();
      if (step > resume_step) continue;
      last_kept_ = std::max(last_kept_, step);
      kept.append(lines[i]).append("\n");
    }
    if (kept == text) resume_step = -1;  // nothing to drop
  }
  if (resume_step >= 0) write_file(path, kept);
  fd_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) fail_system(path, "open");
}

MetricsWriter::~MetricsWriter() {
  if (fd_ >= 0) ::close(fd_);
}

void MetricsWriter::write(std::int64_t step, const MetricFields& fields) {
  MetricFields record = {{"step", step}};
  for (const auto& [key, value] : fields.items())
    if (wall_clock_ || !is_wall_clock_field(key)) record[key] = value;
  const std::string line = dump(record) + "\n";
  ssize_t written;
  do written = ::write(fd_, line.data(), line.size());
  while (written < 0 && errno == EINTR);
  if (written == static_cast<ssize_t>(line.size())) return;
  if (written >= 0) errno = ENOSPC;  // a short write to a plain file: the disk is full
  fail_system(path_, "write");
}

void MetricsWriter::sync() {
  if (::fsync(fd_) != 0) fail_system(path_, "sync");
}

std::vector<MetricFields> read_metrics(const fs::path& path) {
  const std::string text = read_file(path);
  const auto lines = lines_of(text);
  std::vector<MetricFields> out;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    MetricFields record = parse_line(lines[i]);
    if (is_record(record))
      out.push_back(std::move(record));
    else if (i + 1 < lines.size())
      fail<IoError>(
          fmt::format("{}:{}: must be a JSON object with an integer `step`", path.string(), i + 1));
  }
  return out;
}

RunFolder::RunFolder(const fs::path& path, bool resume, Use use) : path_(path) {
  std::error_code error;
  fs::create_directories(checkpoints(), error);
  if (error)
    fail<IoError>(
        fmt::format("{}: cannot create the run folder: {}", path.string(), error.message()));
  if (use == Use::other_rank) return;
  lock();
  if (resume) return;
  const bool has_metrics = fs::exists(metrics()) && fs::file_size(metrics(), error) > 0;
  if (has_metrics || newest_complete(checkpoints()))
    fail<ConfigError>(
        fmt::format("run_dir must be a new folder, got {} with {} (--resume goes on with that run)",
                    path.string(), has_metrics ? "a metrics.jsonl" : "checkpoints"));
}

void RunFolder::lock() {
  // A job that is started again at once may find the last rank of the one before about to die.
  constexpr int kTries = 10;
  for (int i = 1; !lock_; ++i) {
    try {
      lock_.emplace(path_, "lectern train");
    } catch (const IoError&) {
      if (i == kTries) throw;
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
  }
}

fs::path RunFolder::put_aside(std::string_view name) const {
  const fs::path from = path_ / name;
  fs::path to;
  for (int i = 1; to.empty() || fs::exists(to); ++i)
    to = path_ / fmt::format("{}-before-{}{}", from.stem().string(), i, from.extension().string());
  std::error_code error;
  fs::rename(from, to, error);
  if (error) fail<IoError>(fmt::format("{}: cannot rename: {}", from.string(), error.message()));
  return to;
}

void RunFolder::write_config(std::string_view resolved) const { write_file(config(), resolved); }

}  // namespace lectern
