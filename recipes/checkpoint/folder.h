// Checkpoints as files: `<folder>/step-NNNNNN/`, each complete or not there.
//
// A checkpoint is written as `.tmp-step-NNNNNN`, every file and folder is fsynced, COMPLETE is
// written last, and one rename puts it in place. Whatever kills the process, and whenever, the
// previous checkpoint stays loadable. COMPLETE holds, after a line `crc32`, a line `<bytes>
// <checksum> <path>` for each file: a copy that lost a tail is not taken for a checkpoint, and
// find_damage() tells a file whose content changed. Older versions wrote `<bytes> <path>` alone; an
// empty COMPLETE is believed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// "step-000120"; six digits, more when needed.
std::string checkpoint_name(std::int64_t step);
/// Step of such a name; nothing for any other name.
std::optional<std::int64_t> checkpoint_step(std::string_view name);

struct CheckpointEntry {
  std::int64_t step = 0;
  std::filesystem::path path;
};

/// Whether `path` is a finished checkpoint: COMPLETE is there and every file it lists has its size.
bool is_complete(const std::filesystem::path& path);

/// Which files find_damage() looks at.
enum class CheckedFiles : std::uint8_t { all, model };  // model: all but the optimizer's

/// Reads the files of a complete checkpoint that are listed with a checksum, of `shares` shares of
/// them the one `share`. Says which one is damaged: "<file>: must have checksum x, got y
/// (damaged)";
/// "" when none is. Throws IoError.
std::string find_damage(const std::filesystem::path& checkpoint, CheckedFiles which,
                        std::int64_t share = 0, std::int64_t shares = 1);

/// Gives a damaged checkpoint a name that is no checkpoint's, "damaged-step-000120", and returns
/// it. Throws IoError.
std::filesystem::path set_aside(const std::filesystem::path& checkpoint);

/// Folders that are called as checkpoints are and are not complete, by rising step.
std::vector<CheckpointEntry> incomplete_checkpoints(const std::filesystem::path& folder);

/// Finished checkpoints of a folder by rising step; none when the folder is missing.
std::vector<CheckpointEntry> complete_checkpoints(const std::filesystem::path& folder);
std::optional<CheckpointEntry> newest_complete(const std::filesystem::path& folder);

/// What the user gave as a checkpoint: a checkpoint folder itself, a folder of checkpoints, or a
/// run folder (its `checkpoints/`); the newest complete one. Throws IoError that says what was
/// found.
std::filesystem::path resolve_checkpoint(const std::filesystem::path& path);

/// Deletes what interrupted writers and deleters left behind (`.tmp-*`). Call once when a run
/// starts, on one rank; nobody else may be writing into the folder.
void remove_stale(const std::filesystem::path& folder);

/// Deletes all but the `keep` newest complete checkpoints (keep >= 1).
void prune(const std::filesystem::path& folder, std::int64_t keep);

/// One checkpoint being written. Several ranks may write files under path(); one of them makes the
/// writer before the others start and commits after the last is done.
class CheckpointWriter {
 public:
  /// Makes an empty `.tmp-step-NNNNNN` in `folder` (which is made when missing).
  CheckpointWriter(const std::filesystem::path& folder, std::int64_t step);
  /// Deletes what was written unless commit() has returned.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  const std::filesystem::path& path() const { return temporary_; }
  std::filesystem::path path(std::string_view name) const { return temporary_ / name; }

  /// Writes a small file (config.json, state.json) into the checkpoint.
  void add(std::string_view name, std::string_view bytes) const;

  /// What commit() need not read a file for: its CRC-32, known from writing it.
  void set_checksum(const std::string& name, std::uint32_t checksum) {
    checksums_[name] = checksum;
  }

  /// Syncs, marks complete, renames into place (replacing a checkpoint of the same step), then
  /// prunes to `keep`. Returns the final path. Throws IoError; the older checkpoints are untouched
  /// and what was written is gone.
  std::filesystem::path commit(std::int64_t keep);

  /// Tests: called with the name of each point of commit() ("sync", "mark", "rename", "prune");
  /// may throw or kill the process.
  std::function<void(std::string_view)> at_point;

 private:
  std::filesystem::path folder_, temporary_, final_;
  std::map<std::string, std::uint32_t> checksums_;
  bool committed_ = false;
};

}  // namespace lectern
