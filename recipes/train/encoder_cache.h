// Output of a frozen encoder, kept on disk: in stage 3 the encoder no longer changes, so each page
// goes through it once.
#pragma once

#include "core/io/folder_lock.h"
#include "core/tensor.h"

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

namespace lectern {

class ParameterStore;

/// Rows of one image after the projector: global [n, C] and, with tiles, local [k, n', C]; f32, so
/// that a cached step has the bits of an uncached one.
struct CachedFeatures {
  Tensor global;
  Tensor local;
};

/// A bounded append-only store: one data file, one index line an entry. Entries are keyed by the
/// sample's key; the whole cache belongs to one encoder (its checkpoint's fingerprint), and a cache
/// of another encoder is emptied when it is opened. A torn last entry is dropped, and an entry
/// whose checksum does not fit (pages that a power cut left empty) when it is first asked for.
/// Functions may be called from several threads (the loader's workers ask contains()).
class EncoderCache {
 public:
  /// Opens or makes `folder`, and locks it. `fingerprint` identifies the encoder. Once `max_bytes`
  /// are stored, new entries are not kept. Throws IoError, also while another process (or object)
  /// has the folder.
  EncoderCache(const std::filesystem::path& folder, const std::string& fingerprint,
               std::int64_t max_bytes);
  ~EncoderCache();
  EncoderCache(const EncoderCache&) = delete;
  EncoderCache& operator=(const EncoderCache&) = delete;

  /// Whether there is a whole entry: the first time that a key is asked for, its rows are read and
  /// checked, and forgotten if they are damaged.
  bool contains(const std::string& key) const;
  /// Throws IoError when the rows were damaged after contains() has found them whole.
  std::optional<CachedFeatures> find(const std::string& key) const;
  /// Stores an entry unless it is there or the cache is full. A full disk turns the cache off for
  /// the rest of the run: training goes on without it.
  void insert(const std::string& key, const CachedFeatures& features);

  std::int64_t bytes() const;
  std::int64_t entries() const;

 private:
  struct Entry {
    std::int64_t offset = 0;
    std::int64_t global_rows = 0, tiles = 0, local_rows = 0, width = 0;
    std::uint32_t checksum = 0;  // of key, shape and rows
    bool is_checked = false;
  };
  void lock_folder();
  void read_index();
  static std::uint32_t checksum_of(const std::string& key, const Entry& entry,
                                   const CachedFeatures& features);
  CachedFeatures read(const Entry& entry) const;
  bool is_whole(const std::string& key, const Entry& entry) const;

  std::filesystem::path folder_;
  std::optional<FolderLock> lock_;
  std::int64_t max_bytes_;
  std::int64_t bytes_ = 0;
  int data_ = -1, index_ = -1;
  bool writable_ = true;
  mutable std::int64_t damaged_ = 0;
  mutable std::mutex mutex_;
  mutable std::unordered_map<std::string, Entry> entries_;
};

/// Hash of all values of the parameters under `prefixes`, for EncoderCache's fingerprint.
std::string parameter_fingerprint(const ParameterStore& store,
                                  const std::vector<std::string>& prefixes);

}  // namespace lectern
