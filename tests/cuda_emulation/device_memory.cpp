#include "tests/cuda_emulation/device_memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

namespace lectern::emulation {
namespace {

constexpr std::size_t kAlignment = 256, kPage = 4096;

struct Region {
  std::byte* base = nullptr;
  std::map<std::size_t, std::size_t> live, free;  // offset -> bytes
  std::size_t touched = 0;                        // bytes that were ever allocated, whole pages
  int openings = 0;
  std::recursive_mutex mutex;
  struct sigaction previous {};
};

Region& region();

void on_fault(int signal, siginfo_t* info, void* context) {
  const auto* address = static_cast<const std::byte*>(info->si_addr);
  Region& r = region();
  if (address >= r.base && address < r.base + kDeviceBytes) {
    constexpr char kText[] = "cuda emulation: host code touched device memory\n";
    (void)!write(STDERR_FILENO, kText, sizeof kText - 1);
    std::abort();
  }
  if ((r.previous.sa_flags & SA_SIGINFO) != 0 && r.previous.sa_sigaction != nullptr) {
    r.previous.sa_sigaction(signal, info, context);
  } else {
    ::signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
  }
}

Region& region() {
  static Region* instance = [] {
    auto* r = new Region;
    void* base =
        mmap(nullptr, kDeviceBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) std::abort();
    r->base = static_cast<std::byte*>(base);
    r->free[0] = kDeviceBytes;
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, &r->previous);
    return r;
  }();
  return *instance;
}

void protect(Region& r, int protection) {
  if (r.touched > 0) mprotect(r.base, r.touched, protection);
}

}  // namespace

void* allocate_device(std::size_t bytes) {
  Region& r = region();
  const std::lock_guard lock(r.mutex);
  const std::size_t size = std::max(bytes + kAlignment - 1, kAlignment) / kAlignment * kAlignment;
  const auto found = std::find_if(r.free.begin(), r.free.end(),
                                  [=](const auto& hole) { return hole.second >= size; });
  if (found == r.free.end()) return nullptr;
  const auto [offset, hole] = *found;
  r.free.erase(found);
  if (hole > size) r.free[offset + size] = hole - size;
  r.live[offset] = size;
  const std::size_t end = (offset + size + kPage - 1) / kPage * kPage;
  if (end > r.touched) {
    r.touched = end;
    protect(r, r.openings > 0 ? PROT_READ | PROT_WRITE : PROT_NONE);
  }
  const DeviceAccess open;
  std::memset(r.base + offset, 0xff, size);
  return r.base + offset;
}

bool free_device(void* block) {
  Region& r = region();
  const std::lock_guard lock(r.mutex);
  const auto found = r.live.find(static_cast<std::size_t>(static_cast<std::byte*>(block) - r.base));
  if (found == r.live.end()) return false;
  auto [offset, size] = *found;
  r.live.erase(found);
  auto next = r.free.lower_bound(offset);
  if (next != r.free.end() && next->first == offset + size) {
    size += next->second;
    next = r.free.erase(next);
  }
  if (next != r.free.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == offset) {
      before->second += size;
      return true;
    }
  }
  r.free[offset] = size;
  return true;
}

bool is_device_range(const void* data, std::size_t bytes) {
  Region& r = region();
  const std::lock_guard lock(r.mutex);
  if (!is_device_pointer(data)) return false;
  const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(data) - r.base);
  auto at = r.live.upper_bound(offset);
  if (at == r.live.begin()) return false;
  --at;
  return offset + bytes <= at->first + at->second;
}

bool is_device_pointer(const void* data) {
  const Region& r = region();
  const auto* address = static_cast<const std::byte*>(data);
  return address >= r.base && address < r.base + kDeviceBytes;
}

std::size_t device_bytes_free() {
  Region& r = region();
  const std::lock_guard lock(r.mutex);
  std::size_t bytes = 0;
  for (const auto& [offset, size] : r.free) bytes += size;
  return bytes;
}

DeviceAccess::DeviceAccess() {
  Region& r = region();
  const std::lock_guard lock(r.mutex);
  if (r.openings++ == 0) protect(r, PROT_READ | PROT_WRITE);
}

DeviceAccess::~DeviceAccess() {
  Region& r = region();
  const std::lock_guard lock(r.mutex);
  if (--r.openings == 0) protect(r, PROT_NONE);
}

}  // namespace lectern::emulation
