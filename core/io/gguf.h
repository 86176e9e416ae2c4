// GGUF files, version 3, little endian: "GGUF", version, counts, keys with values, names and places
// of tensors, then their data, each from a multiple of general.alignment (32).
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
//
// Shapes here are those of safetensors, slowest dimension first; the file lists them backwards.
#pragma once

#include "core/io/file.h"
#include "core/io/gguf_types.h"
#include "core/shape.h"

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace lectern {

/// UINT32, FLOAT32, BOOL, STRING, and ARRAY of FLOAT32, INT32, STRING: what models have.
using GgufValue = std::variant<std::uint32_t, float, bool, std::string, std::vector<float>,
                               std::vector<std::int32_t>, std::vector<std::string>>;
/// In the order of the file. Readers want "general.architecture" first.
using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;

struct GgufEntry {
  std::string name;
  GgufType type = GgufType::f32;
  Shape shape;  ///< 1 to 4 dimensions

  /// Of its data, without what fills up to the alignment.
  std::size_t bytes() const;
};

/// A file that is written value by value, so that no tensor need be in memory whole: whole under
/// its name when commit() returns, else absent. Throws IoError naming file and tensor.
class GgufWriter {
 public:
  /// Refused: names and keys given twice, names over 63 bytes (readers have no more room), shapes
  /// of no or more than 4 dimensions, rows that are no multiple of the type's block.
  GgufWriter(const std::filesystem::path& path, const GgufMetadata& metadata,
             std::vector<GgufEntry> entries);
  /// The next values of the tensors in the order of `entries`: any number that ends on a block, but
  /// not over the end of a tensor. Refuses values that the type cannot hold (may_hold()).
  void write(std::span<const float> values);
  /// Throws unless all values of all tensors were written.
  void commit();

 private:
  void pad_to_alignment(std::size_t bytes);

  std::filesystem::path path_;
  std::vector<GgufEntry> entries_;
  std::size_t next_ = 0;     ///< of entries_
  std::int64_t values_ = 0;  ///< of that tensor, written
  std::vector<std::byte> buffer_;
  AtomicFile file_;
};

/// A file opened for reading; its data is mapped.
class GgufFile {
 public:
  /// Checks the whole header: counts and lengths within the file, unique names, data of every
  /// tensor inside the file, aligned, without overlap. Throws IoError naming file and key or
  /// tensor; also for types of values and tensors that are not above.
  static GgufFile open(const std::filesystem::path& path);

  const GgufMetadata& metadata() const { return metadata_; }
  /// Nothing where there is no such key.
  const GgufValue* find(const std::string& key) const;
  const std::vector<GgufEntry>& entries() const { return entries_; }
  const GgufEntry& entry(const std::string& name) const;
  bool contains(const std::string& name) const { return places_.contains(name); }
  /// Values begin ... begin + out.size() - 1 of a tensor; both ends on blocks.
  void read(const std::string& name, std::int64_t begin, std::span<float> out) const;
  /// All of a tensor.
  std::vector<float> values(const std::string& name) const;
  /// The tensor's bytes as they stand in the file.
  std::span<const std::byte> data(const std::string& name) const;
  /// Gives the memory behind a tensor's mapped pages back; they are read again when next used.
  void release(const std::string& name) const;

 private:
  friend class GgufHeaderReader;
  struct Place {
    std::size_t entry = 0, offset = 0;  // of the data in the file
  };

  std::filesystem::path path_;
  MappedFile file_;
  GgufMetadata metadata_;
  std::vector<GgufEntry> entries_;
  std::map<std::string, Place> places_;
};

}  // namespace lectern
