// safetensors files: 8 bytes of header length (little endian), a JSON header, raw tensor data.
// Format: https://github.com/huggingface/safetensors ("Format").
#pragma once

#include "core/io/file.h"
#include "core/tensor.h"

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lectern {

/// A file opened for reading. The data is mapped, never copied: tensors that get() returns refer to
/// the mapping and keep it alive, and must not be written to.
class SafetensorsFile {
 public:
  /// Checks the whole header: offsets inside the file, no overlap or gap, byte counts equal to
  /// shape times dtype, unique names. Throws IoError naming the file, the tensor and the field.
  static SafetensorsFile open(const std::filesystem::path& path);

  bool contains(const std::string& name) const { return entries_.contains(name); }
  /// F16 is given as f32, a copy. Throws IoError naming the file when there is no such tensor, or
  /// one in a dtype that cannot be read (dtype_of() too): BOOL, F8_E4M3 ... may lie in a file.
  Tensor get(const std::string& name) const;
  /// Tensors that lie one after the other in the file, as one tensor of `shape` with as many
  /// elements: a view of the mapping. Nothing when they do not, when their dtypes differ or are
  /// not ours, or when they are not aligned. Throws as get().
  std::optional<Tensor> get_joined(const std::vector<std::string>& names, const Shape& shape) const;
  /// Gives the memory behind a tensor's mapped pages back; they are read again when next used.
  void release(const std::string& name) const;
  Shape shape_of(const std::string& name) const;
  DType dtype_of(const std::string& name) const;
  std::vector<std::string> names() const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  struct Entry {
    DType dtype = DType::f32;  // what get() gives
    std::string_view foreign;  // the dtype in the file, where it is none of ours
    std::size_t element = 0;   // bytes of one in the file
    Shape shape;
    std::size_t begin = 0, end = 0;  // bytes from the start of the data section
  };
  const Entry& find(const std::string& name) const;
  const Entry& find_readable(const std::string& name) const;
  void parse_header(const std::string& text);
  void check_layout(std::size_t data_bytes) const;

  std::filesystem::path path_;
  std::shared_ptr<const void> mapping_;
  char* data_ = nullptr;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

/// Several files with one set of names: a folder with model.safetensors, or with shards and
/// <stem>.safetensors.index.json. Throws IoError when a shard or a name is missing; for a folder
/// that has its weights in another format (pytorch_model.bin) it says how to convert them.
class SafetensorsFolder {
 public:
  static SafetensorsFolder open(const std::filesystem::path& folder,
                                const std::string& stem = "model");
  bool contains(const std::string& name) const { return where_.contains(name); }
  Tensor get(const std::string& name) const;
  /// As SafetensorsFile's; nothing when the tensors are not all in one file.
  std::optional<Tensor> get_joined(const std::vector<std::string>& names, const Shape& shape) const;
  void release(const std::string& name) const;
  Shape shape_of(const std::string& name) const;
  DType dtype_of(const std::string& name) const;
  std::vector<std::string> names() const;

 private:
  std::size_t file_of(const std::string& name) const;

  std::filesystem::path folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, std::size_t> where_;
};

/// A file that is written one tensor at a time, so that its tensors never are in memory together: a
/// temporary name beside `path`, fsync, rename, so `path` is whole or absent. Throws IoError.
class SafetensorsWriter {
 public:
  struct Entry {
    std::string name;
    DType dtype;
    Shape shape;
  };
  /// Tensors are stored in the order of `entries`; the data begins at a multiple of 64 bytes.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<Entry> entries,
                    const std::map<std::string, std::string>& metadata = {});
  /// The next tensor of `entries`, in its dtype and shape; may be strided.
  void write(const Tensor& tensor);
  /// The next bytes of that tensor, for one that is never in memory whole.
  void write_piece(const void* data, std::size_t bytes);
  /// Throws unless all were written.
  void commit();

 private:
  std::filesystem::path path_;
  std::vector<Entry> entries_;
  std::size_t next_ = 0;
  std::size_t written_ = 0;  ///< bytes of that tensor
  AtomicFile file_;
};

/// Writes a whole file of tensors in the given order.
void save_safetensors(const std::filesystem::path& path,
                      const std::vector<std::pair<std::string, Tensor>>& tensors,
                      const std::map<std::string, std::string>& metadata = {});

}  // namespace lectern
