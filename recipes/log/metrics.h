// The run folder and its metrics.jsonl: one JSON object a line, `step` first, then what the caller
// gives in the caller's order. Doubles are written so that reading them gives the same bits.
//
// Order of a step: write every record of step s, then the checkpoint of step s. A run that is
// killed and resumed from that checkpoint then has each record exactly once.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

using MetricFields = nlohmann::ordered_json;  // an object; NaN and infinities are written as null

/// Fields that depend on the machine and the moment: seconds, peak_bytes, tokens_per_second,
/// samples_per_second, and what a memory plan chose. They are left out when log.wall_clock = false.
bool is_wall_clock_field(std::string_view name);

/// The line of metrics.jsonl without its wall-clock fields, for comparing runs. Throws IoError when
/// it is not a JSON object.
std::string deterministic_view(std::string_view line);

/// Appends to metrics.jsonl. One write a line, so that a killed process leaves whole lines.
class MetricsWriter {
 public:
  /// Opens `path` and drops every line after step `resume_step` (and a broken last line): 0 starts
  /// with none. The shortened file replaces the old one in one rename. Throws IoError.
  MetricsWriter(const std::filesystem::path& path, std::int64_t resume_step,
                bool wall_clock = true);
  ~MetricsWriter();
  MetricsWriter(const MetricsWriter&) = delete;
  MetricsWriter& operator=(const MetricsWriter&) = delete;

  /// Writes one record; throws IoError (a full disk).
  void write(std::int64_t step, const MetricFields& fields);
  /// Forces what was written to the disk; call before a checkpoint is marked complete.
  void sync();

 private:
  std::filesystem::path path_;
  bool wall_clock_;
  int fd_ = -1;
};

/// Records of a metrics file; a broken last line (a crash) is left out, any other broken line
/// throws IoError naming file and line.
std::vector<MetricFields> read_metrics(const std::filesystem::path& path);

/// run_dir and the paths in it.
class RunFolder {
 public:
  /// Makes the folder. Without `resume` a folder that already has metrics is refused (ConfigError),
  /// so that no run silently continues or overwrites another.
  RunFolder(const std::filesystem::path& path, bool resume);

  /// Writes config.toml.
  void write_config(std::string_view resolved) const;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path metrics() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }

 private:
  std::filesystem::path path_;
};

}  // namespace lectern
