// The run folder and its metrics.jsonl: one JSON object a line, `step` first, then what the caller
// gives in the caller's order. Doubles are written so that reading them gives the same bits.
//
// Order of a step: write every record of step s, then the checkpoint of step s. A run that is
// killed and resumed from that checkpoint then has each record exactly once.
#pragma once

#include "core/io/folder_lock.h"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <optional>
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
  /// Step of the last record that was kept when the file was opened; 0 without any.
  std::int64_t last_kept() const { return last_kept_; }
  /// Lines that were no records, but for a broken last one.
  std::int64_t broken_lines() const { return broken_lines_; }
  /// Forces what was written to the disk; call before a checkpoint is marked complete.
  void sync();

 private:
  std::filesystem::path path_;
  bool wall_clock_;
  std::int64_t last_kept_ = 0, broken_lines_ = 0;
  int fd_ = -1;
};

/// Records of a metrics file; a broken last line (a crash) is left out, any other broken line
/// throws IoError naming file and line.
std::vector<MetricFields> read_metrics(const std::filesystem::path& path);

/// run_dir and the paths in it.
class RunFolder {
 public:
  /// Who uses it: one rank of a run writes what there is once, and locks the folder.
  enum class Use : std::uint8_t { first_rank, other_rank };

  /// Makes the folder, and locks it. Without `resume` a folder that already has metrics or complete
  /// checkpoints is refused (ConfigError), so that no run silently continues or overwrites another.
  /// Throws IoError while another run has the folder.
  RunFolder(const std::filesystem::path& path, bool resume, Use use = Use::first_rank);

  /// Writes config.toml.
  void write_config(std::string_view resolved) const;
  /// Renames a file of the folder so that another can be written: "metrics.jsonl" becomes
  /// "metrics-before-1.jsonl", or a higher number. Returns the new path. Throws IoError.
  std::filesystem::path put_aside(std::string_view name) const;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path config() const { return path_ / "config.toml"; }
  std::filesystem::path metrics() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }

 private:
  void lock();

  std::filesystem::path path_;
  std::optional<FolderLock> lock_;
};

}  // namespace lectern
