#include "recipes/export/source.h"

#include <algorithm>
#include <map>

namespace lectern {

ExportSource ExportSource::open(const std::filesystem::path& path,
                                const std::filesystem::path& adapter) {
  ExportSource out;
  const auto model = std::make_shared<LoadedModel>(open_model_folder(path, adapter));
  const auto stored = std::make_shared<StoredTensors>(*model->model, model->folder);
  out.model_ = model;
  out.read_ = [stored, model](const std::string& name) {
    const Tensor value = stored->get(name).contiguous();
    return model->adapter ? model->adapter->merged(name, value) : value;
  };
  out.release_ = [stored](const std::string& name) { stored->release(name); };
  out.list_tensors();
  return out;
}

ExportSource::ExportSource(const LoadedModel& loaded)
    : model_(std::shared_ptr<const LoadedModel>(), &loaded) {
  std::map<std::string, Tensor> values;
  for (const auto& [name, value] : loaded.model->store().file_order_state()) values[name] = value;
  const Adapter* adapter = loaded.adapter.get();
  read_ = [values = std::move(values), adapter](const std::string& name) {
    const Tensor value = values.at(name).to(Device{}).contiguous();
    return adapter != nullptr ? adapter->merged(name, value) : value;
  };
  release_ = [](const std::string&) {};
  list_tensors();
}

void ExportSource::list_tensors() {
  for (const auto& [name, value] : model_->model->store().file_order_state())
    tensors_.emplace_back(name, value.shape());
}

Tensor ExportSource::read_f32(const std::string& name) const { return read(name).to(DType::f32); }

void for_each_piece(
    const Tensor& tensor,
    const std::function<void(std::int64_t begin, std::span<const float> values)>& use) {
  constexpr std::int64_t kPiece = 1 << 16;
  const Tensor flat = tensor.contiguous().view({-1});
  if (flat.numel() == 0) use(0, {});
  for (std::int64_t begin = 0; begin < flat.numel(); begin += kPiece) {
    const std::int64_t end = std::min(begin + kPiece, flat.numel());
    const Tensor piece = flat.slice(0, begin, end).to(DType::f32);
    use(begin, {piece.data<float>(), static_cast<std::size_t>(end - begin)});
  }
}

}  // namespace lectern
