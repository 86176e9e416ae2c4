// A folder that holds a model: config.json, model*.safetensors, tokenizer.json. Checkpoints of a
// run are such folders, and so are exported and published models.
#pragma once

#include "data/tokenizer/tokenizer.h"
#include "nn/adapter.h"
#include "nn/model.h"
#include "recipes/checkpoint/adapter_folder.h"

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lectern {

struct LoadedModel {
  std::unique_ptr<OcrModel> model;
  Tokenizer tokenizer;
  std::filesystem::path folder;        ///< of the model, not of the adapter
  std::unique_ptr<Adapter> adapter{};  ///< beside the model's matrices; null: none
  AdapterInfo adapter_info{};          ///< of it

  /// Moves model and adapter to a device.
  void to(Device device) const;
};

/// The dtype that a --dtype option names, fp32 or bf16. Throws ConfigError.
DType weight_dtype(const std::string& name);

/// Loads a model folder, a checkpoint, or the newest checkpoint of a run folder, for reading:
/// values stay in the mapped file where they can (nn/weights.h). `dtype` f32, or bf16:
/// matrices in bf16, everything else f32. Throws IoError or ConfigError naming file and field, also
/// for a checkpoint that is damaged.
///
/// `adapter`: a folder of a low-rank adapter (recipes/checkpoint/adapter_folder.h) to put on the
/// model. Where `path` itself is an adapter (of a run that trains one), its model is the one that
/// it names.
LoadedModel load_model_folder(const std::filesystem::path& path, DType dtype = DType::f32,
                              const std::filesystem::path& adapter = {});

/// The same without values (ParameterValues::absent), for programs that read the tensors themselves
/// (StoredTensors). An adapter has its values.
LoadedModel open_model_folder(const std::filesystem::path& path,
                              const std::filesystem::path& adapter = {});

/// The model of a folder that need not have a tokenizer, as above. `mapped`, when given, becomes
/// the number of tensors that stay in the file.
std::unique_ptr<OcrModel> load_model(const std::filesystem::path& folder, const ModelConfig& config,
                                     DType dtype, std::int64_t* mapped = nullptr);

/// The folder that `path` stands for: itself when it has a config.json, else its newest complete
/// checkpoint.
std::filesystem::path resolve_model_folder(const std::filesystem::path& path);

/// Throws IoError naming the file when `folder` is a checkpoint with a file of the model that is
/// not what was written. Reads all of them.
void check_not_damaged(const std::filesystem::path& folder);

/// The small model that comes with lectern: recipes/nano here, else where recipes lie beside the
/// running program, built or installed. Throws IoError naming the folder when there is none.
std::filesystem::path shipped_model();

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

/// Writes `<stem>.safetensors.index.json` for tensors that are all in the one shard `file`.
void save_index(const std::filesystem::path& folder, const std::string& stem,
                const std::string& file, const std::vector<std::string>& names, std::size_t bytes);
/// Writes tensors as the one shard `file` with its index `<stem>.safetensors.index.json`.
void save_indexed(const std::filesystem::path& folder, const std::string& stem,
                  const std::string& file, const NamedTensors& tensors);

/// Writes config.json and the weights (published names, one shard with its index) into an existing
/// folder.
void save_model(const OcrModel& model, const std::filesystem::path& folder);

/// Throws ConfigError unless the tokenizer fits the model: ids below vocab_size, <image> at
/// image_token_id, tokens at bos_token_id and eos_token_id.
void check_tokenizer(const Tokenizer& tokenizer, const ModelConfig& config,
                     const std::string& name);

}  // namespace lectern
