// A block of memory that tensors share, with a version that grows when its content changes.
#pragma once

#include "core/device.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

namespace lectern {

class Storage {
 public:
  /// Owns `bytes` bytes from the device's allocator, uninitialised.
  Storage(std::size_t bytes, Device device);
  /// Refers to memory that `owner` keeps alive (a mapped file, a caller's buffer).
  Storage(void* data, std::size_t bytes, Device device, std::shared_ptr<const void> owner);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

  /// Caches derived from the content (packed weights) compare this number to know if they are old.
  std::uint64_t version() const { return version_.load(std::memory_order_acquire); }
  void mark_modified() { version_.fetch_add(1, std::memory_order_acq_rel); }

  /// A cached value that lives and dies with this storage, by name; null when there is none.
  std::shared_ptr<void> attachment(const std::string& name) const;
  void attach(const std::string& name, std::shared_ptr<void> value);

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  Device device_;
  std::shared_ptr<const void> owner_;
  bool is_foreign_ = false;
  std::atomic<std::uint64_t> version_{0};
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<void>> attachments_;
};

}  // namespace lectern
