#include "core/storage.h"

#include "core/allocator.h"
#include "core/device_backend.h"
#include "core/error.h"

#include <utility>

namespace lectern {

Storage::Storage(std::size_t bytes, Device device) : bytes_(bytes), device_(device) {
  if (device.type != DeviceType::cpu) {
    const DeviceBackend& backend = device_backend(device);
    data_ = bytes == 0 ? nullptr : backend.allocate(bytes, device);
    return;
  }
  data_ = bytes == 0 ? nullptr : allocate_cpu(bytes);
}

Storage::Storage(void* data, std::size_t bytes, Device device, std::shared_ptr<const void> owner)
    : data_(data), bytes_(bytes), device_(device), owner_(std::move(owner)), is_foreign_(true) {}

Storage::~Storage() {
  if (is_foreign_ || data_ == nullptr) return;
  if (device_.type == DeviceType::cpu)
    free_cpu(data_, bytes_);
  else
    device_backend(device_).free(data_, bytes_, device_);
}

std::shared_ptr<void> Storage::attachment(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto found = attachments_.find(name);
  return found == attachments_.end() ? nullptr : found->second;
}

void Storage::attach(const std::string& name, std::shared_ptr<void> value) {
  const std::lock_guard lock(mutex_);
  attachments_[name] = std::move(value);
}

}  // namespace lectern
