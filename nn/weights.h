// Reading a model's tensors from safetensors, and giving them out for writing.
#pragma once

#include "core/io/safetensors.h"
#include "nn/parameter.h"

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace lectern {

class OcrModel;

struct LoadReport {
  std::int64_t loaded = 0;
  std::int64_t mapped = 0;  ///< of them, tensors that are read in the mapped file, not copied
  std::vector<std::string> skipped;  ///< names of the file that the model does not have anywhere
  /// Names of buffers that every program computes itself (`rotary_emb.inv_freq`, `position_ids`,
  /// causal masks): left out, with one note (core/notice.h).
  std::vector<std::string> computed;
};

/// Copies every tensor of the store whose name starts with one of `prefixes` (all when empty) from
/// a folder (model.safetensors, or shards with their index) or one .safetensors file. `rename`
/// turns a stored name into a published one (ModelConfig::published_name()). Stored dtypes (F64,
/// F32, F16, BF16) are converted, and the pages of what was copied given back, so that there is
/// never more than one copy. Throws IoError naming folder, tensor, found and expected shape when
/// one is missing or does not fit; the model is then unchanged. `strict`, without prefixes, also
/// refuses tensors that the model does not have, here or in another process.
///
/// In a store of ParameterValues::absent a parameter whose tensors lie in the file as it wants them
/// (its dtype, its parts side by side in order, aligned) becomes a view of the mapped file: nothing
/// is copied or read before it is used. Others get memory first.
LoadReport load_weights(ParameterStore& store, const std::filesystem::path& path,
                        const std::function<std::string(const std::string&)>& rename,
                        const std::vector<std::string>& prefixes = {}, bool strict = true);

/// The same into a model, from files in any layout that its family knows.
LoadReport load_weights(OcrModel& model, const std::filesystem::path& path,
                        const std::vector<std::string>& prefixes = {}, bool strict = true);

/// The tensors of a folder by their published names, one at a time, for programs that pass weights
/// on: the model, which may be one of ParameterValues::absent, gives names and shapes only.
class StoredTensors {
 public:
  /// Checks what load_weights() with `strict` checks, and throws as it does.
  StoredTensors(const OcrModel& model, const std::filesystem::path& path);
  /// A value in its stored dtype: a view of the mapped file, but for F16, which is given as f32.
  Tensor get(const std::string& name) const;
  /// Gives the memory behind a tensor's mapped pages back; they are read again when next used.
  void release(const std::string& name) const;

 private:
  struct Place {
    std::string stored;
    Parameter parameter;
    ParameterPart part;
    bool stacked = false;  ///< the file has the whole parameter as one tensor
  };
  const Place& find(const std::string& name) const;

  SafetensorsFolder folder_;
  std::map<std::string, Place> places_;
};

}  // namespace lectern
