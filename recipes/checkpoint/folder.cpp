#include "recipes/checkpoint/folder.h"

#include "core/error.h"
#include "core/io/file.h"
#include "core/io/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>

namespace lectern {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMarker = "COMPLETE";
constexpr std::string_view kPrefix = "step-";
constexpr std::string_view kTemporary = ".tmp-";
constexpr std::string_view kWithChecksums = "crc32\n";  // first line of COMPLETE

/// Forces a file's content, or a folder's list of names, to the disk.
void sync_path(const fs::path& path, int flags) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | flags);
  const bool done = descriptor >= 0 && ::fsync(descriptor) == 0;
  const int code = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (!done) fail<IoError>(fmt::format("{}: cannot sync: {}", path.string(), std::strerror(code)));
}
void sync_file(const fs::path& path) { sync_path(path, 0); }
void sync_folder(const fs::path& path) { sync_path(path, O_DIRECTORY); }

/// Deletes a folder so that a kill half-way leaves only a name that readers ignore.
void remove_folder(const fs::path& path) {
  std::error_code error;
  const fs::path hidden = path.parent_path() / fmt::format("{}delete-{}-{}", kTemporary,
                                                           path.filename().string(), ::getpid());
  fs::rename(path, hidden, error);
  fs::remove_all(error ? path : hidden, error);
}

/// Puts `from` at `to` in one step; what stood at `to` ends at `from`.
void replace_folder(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    remove_folder(from);
    return;
  }
  // No exchange on this file system: for a moment only older checkpoints and the hidden one exist.
  remove_folder(to);
  if (::rename(from.c_str(), to.c_str()) != 0)
    fail<IoError>(
        fmt::format("{}: cannot rename into place: {}", to.string(), std::strerror(errno)));
}

/// Every plain file below `root` with its size and checksum, as lines of COMPLETE; syncs files and
/// folders. `known` has checksums of some.
std::string sync_and_list(const fs::path& root, const std::map<std::string, std::uint32_t>& known) {
  std::vector<std::string> lines;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (entry.is_directory()) {
      sync_folder(entry.path());
    } else if (entry.is_regular_file()) {
      sync_file(entry.path());
      const std::string name = entry.path().lexically_relative(root).string();
      const auto found = known.find(name);
      const std::uint32_t sum = found != known.end() ? found->second : crc32_of_file(entry.path());
      lines.push_back(fmt::format("{} {:08x} {}\n", entry.file_size(), sum, name));
    }
  }
  sync_folder(root);
  std::sort(lines.begin(), lines.end());
  std::string out(kWithChecksums);
  for (const std::string& line : lines) out += line;
  return out;
}

/// A line of COMPLETE.
struct ListedFile {
  std::uintmax_t bytes = 0;
  std::optional<std::uint32_t> checksum;
  std::string name;
};

std::optional<ListedFile> parse_listed(std::string_view line, bool with_checksum) {
  ListedFile out;
  const char* const last = line.data() + line.size();
  auto [at, code] = std::from_chars(line.data(), last, out.bytes);
  if (code != std::errc() || at == last || *at++ != ' ') return {};
  if (with_checksum) {
    const auto [end, bad] = std::from_chars(at, last, out.checksum.emplace(), 16);
    if (bad != std::errc() || end - at != 8 || end == last || *end != ' ') return {};
    at = end + 1;
  }
  out.name.assign(at, last);
  if (out.name.empty()) return {};
  return out;
}

/// What COMPLETE lists; nothing when it is not there or not readable.
std::optional<std::vector<ListedFile>> listed_files(const fs::path& root) {
  std::error_code error;
  if (!fs::is_regular_file(root / kMarker, error)) return {};
  std::string text;
  try {
    text = read_file(root / kMarker, 1 << 20);
  } catch (const IoError&) {
    return {};
  }
  const bool with_checksums = text.starts_with(kWithChecksums);
  std::vector<ListedFile> out;
  for (std::size_t start = with_checksums ? kWithChecksums.size() : 0; start < text.size();) {
    const auto end = std::min(text.find('\n', start), text.size());
    auto file = parse_listed(std::string_view(text).substr(start, end - start), with_checksums);
    if (!file) return {};
    out.push_back(std::move(*file));
    start = end + 1;
  }
  return out;
}

std::vector<CheckpointEntry> checkpoints_in(const fs::path& folder, bool complete) {
  std::vector<CheckpointEntry> out;
  std::error_code error;
  for (fs::directory_iterator each(folder, error), end; !error && each != end;
       each.increment(error)) {
    const auto step = checkpoint_step(each->path().filename().string());
    if (step && is_complete(each->path()) == complete) out.push_back({*step, each->path()});
  }
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
  return out;
}

}  // namespace

std::string checkpoint_name(std::int64_t step) { return fmt::format("{}{:06}", kPrefix, step); }

std::optional<std::int64_t> checkpoint_step(std::string_view name) {
  if (!name.starts_with(kPrefix) || name.size() < kPrefix.size() + 6) return {};
  name.remove_prefix(kPrefix.size());
  std::int64_t step = 0;
  const auto [end, code] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (code != std::errc() || end != name.data() + name.size() || step < 0) return {};
  return step;
}

bool is_complete(const fs::path& path) {
  const auto files = listed_files(path);
  return files && std::all_of(files->begin(), files->end(), [&](const ListedFile& file) {
           std::error_code error;
           return fs::file_size(path / file.name, error) == file.bytes && !error;
         });
}

std::string find_damage(const fs::path& checkpoint, CheckedFiles which, std::int64_t share,
                        std::int64_t shares) {
  std::int64_t index = 0;
  for (const ListedFile& file : listed_files(checkpoint).value_or(std::vector<ListedFile>())) {
    const bool counts = which == CheckedFiles::all || !file.name.starts_with("optimizer");
    if (!file.checksum || !counts || index++ % shares != share) continue;
    const std::uint32_t sum = crc32_of_file(checkpoint / file.name);
    if (sum != *file.checksum)
      return fmt::format("{}: must have checksum {:08x}, got {:08x} (damaged)",
                         (checkpoint / file.name).string(), *file.checksum, sum);
  }
  return "";
}

fs::path set_aside(const fs::path& checkpoint) {
  const std::string name = "damaged-" + checkpoint.filename().string();
  fs::path to = checkpoint.parent_path() / name;
  for (int i = 2; fs::exists(to); ++i)
    to = checkpoint.parent_path() / fmt::format("{}-{}", name, i);
  if (::rename(checkpoint.c_str(), to.c_str()) != 0)
    fail<IoError>(fmt::format("{}: cannot rename: {}", checkpoint.string(), std::strerror(errno)));
  return to;
}

std::vector<CheckpointEntry> complete_checkpoints(const fs::path& folder) {
  return checkpoints_in(folder, true);
}

std::vector<CheckpointEntry> incomplete_checkpoints(const fs::path& folder) {
  return checkpoints_in(folder, false);
}

std::optional<CheckpointEntry> newest_complete(const fs::path& folder) {
  auto all = complete_checkpoints(folder);
  if (all.empty()) return {};
  return std::move(all.back());
}

fs::path resolve_checkpoint(const fs::path& path) {
  if (is_complete(path)) return path;
  for (const fs::path& folder : {path, path / "checkpoints"})
    if (auto newest = newest_complete(folder)) return newest->path;
  std::error_code error;
  if (!fs::exists(path, error))
    fail<IoError>(path.string() + ": must be a checkpoint or run folder, got nothing there");
  fail<IoError>(path.string() +
                ": must be a checkpoint (with COMPLETE) or a run folder with one, got neither");
}

void remove_stale(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> stale;
  for (fs::directory_iterator each(folder, error), end; !error && each != end;
       each.increment(error))
    if (each->path().filename().string().starts_with(kTemporary)) stale.push_back(each->path());
  for (const fs::path& path : stale) fs::remove_all(path, error);
}

void prune(const fs::path& folder, std::int64_t keep) {
  const auto all = complete_checkpoints(folder);
  const auto count = static_cast<std::int64_t>(all.size());
  for (std::int64_t i = 0; i + std::max<std::int64_t>(keep, 1) < count; ++i)
    remove_folder(all[static_cast<std::size_t>(i)].path);
}

CheckpointWriter::CheckpointWriter(const fs::path& folder, std::int64_t step)
    : folder_(folder),
      temporary_(folder / (std::string(kTemporary) + checkpoint_name(step))),
      final_(folder / checkpoint_name(step)) {
  std::error_code error;
  fs::remove_all(temporary_, error);
  fs::create_directories(temporary_, error);
  if (error)
    fail<IoError>(fmt::format("{}: cannot create: {}", temporary_.string(), error.message()));
}

CheckpointWriter::~CheckpointWriter() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(temporary_, ignored);
}

void CheckpointWriter::add(std::string_view name, std::string_view bytes) const {
  write_file(path(name), bytes);
}

fs::path CheckpointWriter::commit(std::int64_t keep) {
  const auto point = [this](std::string_view name) {
    if (at_point) at_point(name);
  };
  try {
    point("sync");
    const std::string list = sync_and_list(temporary_, checksums_);
    point("mark");
    write_file(temporary_ / kMarker, list);
    point("rename");
    if (fs::exists(final_))
      replace_folder(temporary_, final_);
    else
      fs::rename(temporary_, final_);
    committed_ = true;
    sync_folder(folder_);
  } catch (const fs::filesystem_error& error) {
    fail<IoError>(fmt::format("{}: cannot write the checkpoint: {}", final_.string(),
                              error.code().message()));
  }
  point("prune");
  prune(folder_, keep);
  return final_;
}

}  // namespace lectern
