// The little of HDF5 that shards need, with every failure an IoError. Private to this room.
//
// Debian's libhdf5 is not thread-safe: each function holds one process-wide mutex. Files are
// written with the newest format, in which every piece of metadata has a checksum, and read only if
// they are of it; every dataset has Fletcher-32 checksums on its chunks. Nothing that a file claims
// about its sizes is believed before it is compared with the bytes that the file has.
#pragma once

#include "core/dtype.h"

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>

namespace lectern::detail {

/// Writes a new file; the same calls give the same bytes.
class Hdf5Writer {
 public:
  /// Throws IoError when `path` cannot be made.
  explicit Hdf5Writer(const std::filesystem::path& path);
  ~Hdf5Writer();
  Hdf5Writer(const Hdf5Writer&) = delete;
  Hdf5Writer& operator=(const Hdf5Writer&) = delete;

  void group(const std::string& name);
  void attribute(const std::string& name, std::int64_t value);
  void attribute(const std::string& name, const std::string& value);
  /// One column makes a vector, more a [rows, columns] array. `compress` false is for bytes that
  /// are packed already.
  template <typename T>
  void dataset(const std::string& name, std::span<const T> values, std::int64_t columns = 1,
               bool compress = true) {
    write(name, values.data(), static_cast<std::int64_t>(values.size()) / columns, columns,
          kDTypeOf<T>, compress);
  }
  /// Flushes and closes; only then is the file complete. Throws IoError (a full disk, say).
  void close();

 private:
  void write(const std::string& name, const void* values, std::int64_t rows, std::int64_t columns,
             DType dtype, bool compress);

  std::string name_;
  std::int64_t file_ = -1;
};

class Hdf5Reader {
 public:
  /// Throws IoError unless `path` is a whole file of the newest format.
  explicit Hdf5Reader(const std::filesystem::path& path);
  ~Hdf5Reader();
  Hdf5Reader(const Hdf5Reader&) = delete;
  Hdf5Reader& operator=(const Hdf5Reader&) = delete;

  const std::string& name() const { return name_; }
  std::uint64_t bytes() const { return file_bytes_; }
  std::int64_t integer_attribute(const std::string& name) const;
  std::string text_attribute(const std::string& name) const;

  /// Opens a dataset and returns its rows. Throws IoError unless it has the dtype and columns, is
  /// chunked, uses no other filters than deflate, shuffle and Fletcher-32, and the bytes stored for
  /// it can hold as many rows as it claims.
  std::int64_t open_dataset(const std::string& dataset, DType dtype, std::int64_t columns = 1);
  /// Rows begin .. begin+count-1 of an opened dataset. Throws IoError when a chunk is damaged.
  template <typename T>
  void read(const std::string& dataset, std::int64_t begin, std::int64_t count, T* out) const {
    read_rows(dataset, begin, count, kDTypeOf<T>, out);
  }

 private:
  struct Dataset {
    std::int64_t id = -1;
    std::int64_t rows = 0, columns = 0;
    DType dtype = DType::u8;
  };
  void read_rows(const std::string& dataset, std::int64_t begin, std::int64_t count, DType dtype,
                 void* out) const;
  void check_storage(const std::string& dataset, const Dataset& opened) const;

  std::string name_;
  std::int64_t file_ = -1;
  std::uint64_t file_bytes_ = 0;
  std::map<std::string, Dataset> datasets_;
};

}  // namespace lectern::detail
