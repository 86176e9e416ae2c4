// What an export reads.
#pragma once

#include "nn/weights.h"
#include "recipes/checkpoint/model_folder.h"

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lectern {

/// A model whose tensors are given out one at a time, so that an export never holds a second one
/// beside the mapped files. Copies share what they refer to.
class ExportSource {
 public:
  /// A model folder, a checkpoint, or the newest checkpoint of a run folder: configuration and
  /// tokenizer are read, weights checked and left in the mapped files. Throws as
  /// load_model_folder() does.
  /// `adapter`, or an adapter as `path`, is merged: read() gives W + scale B A, in f32, where there
  /// is a pair.
  static ExportSource open(const std::filesystem::path& path,
                           const std::filesystem::path& adapter = {});
  /// A model in memory, which must live as long as the source.
  ExportSource(const LoadedModel& loaded);  // NOLINT(google-explicit-constructor): it is one

  /// Configuration, tokenizer and folder. The values of its model may be absent: read() has them.
  const LoadedModel& model() const { return *model_; }
  const ModelConfig& config() const { return model_->model->config(); }
  /// The low-rank adapter that read() merges; null: none.
  const Adapter* adapter() const { return model_->adapter.get(); }
  /// Published names and shapes, in the order of files (ParameterStore::file_order_state()).
  const std::vector<std::pair<std::string, Shape>>& tensors() const { return tensors_; }

  /// A value in the dtype it is stored in, contiguous, on the CPU; a view where it can be one.
  Tensor read(const std::string& name) const { return read_(name); }
  /// read() in f32.
  Tensor read_f32(const std::string& name) const;
  /// After read(): the mapped pages are not needed any more.
  void release(const std::string& name) const { release_(name); }

 private:
  ExportSource() = default;
  void list_tensors();

  std::shared_ptr<const LoadedModel> model_;
  std::vector<std::pair<std::string, Shape>> tensors_;
  std::function<Tensor(const std::string&)> read_;
  std::function<void(const std::string&)> release_;
};

/// Values of a tensor in any floating dtype as f32, a piece at a time: `use(begin, values)` with
/// pieces of 2^16 values, the last shorter; once without values
/// for an empty tensor.
void for_each_piece(
    const Tensor& tensor,
    const std::function<void(std::int64_t begin, std::span<const float> values)>& use);

}  // namespace lectern
