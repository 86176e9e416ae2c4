// The host's version of cuda/device_code.h: the same names, with every access checked.
#pragma once

#include "core/dtype.h"
#include "tests/cuda_emulation/cuda_runtime.h"

#include <bit>
#include <cstdint>
#include <type_traits>

namespace lectern::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T values[N];
  T& operator[](int i) { return values[i]; }
  const T& operator[](int i) const { return values[i]; }
};

template <typename T, int N>
void check_aligned(const T* data, std::int64_t i, const char* memory) {
  if (reinterpret_cast<std::uintptr_t>(data) % (sizeof(T) * N) != 0)
    emulation::report(fmt::format("{} memory: {} elements at index {} are not aligned to {} bytes",
                                  memory, N, i, sizeof(T) * N));
}

template <typename T>
class Span {
 public:
  using Value = std::remove_const_t<T>;
  Span() = default;
  Span(T* data, std::int64_t count) : data_(data), count_(count) {}

  T& operator[](std::int64_t i) const {
    check(i, 1);
    return data_[i];
  }
  bool exists() const { return data_ != nullptr; }
  template <int N>
  Pack<Value, N> load(std::int64_t i) const {
    check(i, N);
    check_aligned<T, N>(data_ + i, i, "global");
    Pack<Value, N> pack;
    std::memcpy(static_cast<void*>(&pack), data_ + i, sizeof pack);
    return pack;
  }
  template <int N>
  void store(std::int64_t i, const Pack<Value, N>& pack) const {
    check(i, N);
    check_aligned<T, N>(data_ + i, i, "global");
    std::memcpy(static_cast<void*>(data_ + i), &pack, sizeof pack);
  }
  Value atomic_add(std::int64_t i, Value term) const {
    check(i, 1);
    const Value before = data_[i];
    data_[i] += term;
    return before;
  }
  T* address(std::int64_t i, int count) const {
    check(i, count);
    return data_ + i;
  }

 private:
  void check(std::int64_t i, std::int64_t count) const {
    if (i < 0 || i + count > count_)
      emulation::report(count == 1
                            ? fmt::format("global memory: index {} of {} elements", i, count_)
                            : fmt::format("global memory: indices {}..{} of {} elements", i,
                                          i + count - 1, count_));
  }
  T* data_ = nullptr;
  std::int64_t count_ = 0;
};

/// An element of shared memory, so that reads and writes can be told apart.
template <typename T>
class SharedElement {
 public:
  explicit SharedElement(T* element) : element_(element) {}
  operator T() const {
    emulation::touch_shared(element_, emulation::Access::read);
    return *element_;
  }
  const SharedElement& operator=(T value) const {
    emulation::touch_shared(element_, emulation::Access::write);
    *element_ = value;
    return *this;
  }
  const SharedElement& operator=(const SharedElement& other) const {
    return *this = static_cast<T>(other);
  }
  SharedElement(const SharedElement&) = default;
  const SharedElement& operator+=(T term) const { return *this = static_cast<T>(*this) + term; }
  const SharedElement& operator*=(T factor) const { return *this = static_cast<T>(*this) * factor; }

 private:
  T* element_;
};

template <typename T>
class Shared {
 public:
  Shared(T* data, int count) : data_(data), count_(count) {}

  SharedElement<T> operator[](int i) const {
    check(i, 1);
    return SharedElement<T>(data_ + i);
  }
  template <int N>
  Pack<T, N> load(int i) const {
    check(i, N);
    check_aligned<T, N>(data_ + i, i, "shared");
    touch(i, N, emulation::Access::read);
    Pack<T, N> pack;
    std::memcpy(static_cast<void*>(&pack), data_ + i, sizeof pack);
    return pack;
  }
  template <int N>
  void store(int i, const Pack<T, N>& pack) const {
    check(i, N);
    check_aligned<T, N>(data_ + i, i, "shared");
    touch(i, N, emulation::Access::write);
    std::memcpy(static_cast<void*>(data_ + i), &pack, sizeof pack);
  }
  T atomic_add(int i, T term) const {
    check(i, 1);
    touch(i, 1, emulation::Access::atomic);
    const T before = data_[i];
    data_[i] += term;
    return before;
  }
  Shared part(int begin, int count) const {
    check(begin, count);
    return Shared(data_ + begin, count);
  }
  T* address(int i, int count) const {
    check(i, count);
    return data_ + i;
  }
  void touch(int i, int count, emulation::Access access) const {
    for (int k = i; k < i + count; ++k) emulation::touch_shared(data_ + k, access);
  }

 private:
  void check(int i, int count) const {
    if (i < 0 || i + count > count_)
      emulation::report(count == 1
                            ? fmt::format("shared memory: index {} of {} elements", i, count_)
                            : fmt::format("shared memory: indices {}..{} of {} elements", i,
                                          i + count - 1, count_));
  }
  T* data_;
  int count_;
};

template <typename T>
constexpr std::size_t shared_bytes_of(std::size_t count) {
  return (count * sizeof(T) + 15) / 16 * 16;
}

class SharedMemory {
 public:
  template <typename T>
  Shared<T> take(int count) {
    const std::size_t bytes = shared_bytes_of<T>(static_cast<std::size_t>(count));
    T* data = static_cast<T*>(emulation::shared_memory(used_, bytes));
    used_ += bytes;
    return Shared<T>(data, count);
  }

 private:
  std::size_t used_ = 0;
};

inline float to_float(float x) { return x; }
inline float to_float(BFloat16 x) { return static_cast<float>(x); }
template <typename T>
float to_float(const SharedElement<T>& x) {
  return to_float(static_cast<T>(x));
}
template <typename T>
T from_float(float x) {
  return T(x);
}

inline std::uint32_t pack_bf16(float low, float high) {
  return BFloat16(low).bits | static_cast<std::uint32_t>(BFloat16(high).bits) << 16;
}

inline float exp2_fast(float x) { return x < -126.0f ? 0.0f : std::exp2(x); }

struct TileA {
  std::uint32_t parts[4];
};
struct TileB {
  std::uint32_t parts[2];
};
struct TileC {
  float sums[4];
};

void multiply_tile(TileC& c, const TileA& a, const TileB& b,
                   emulation::Site site = {__builtin_FILE(), __builtin_LINE()});

void load_matrices_of_warp(std::uint32_t (&parts)[4], const BFloat16* row, bool transposed,
                           emulation::Site site);

template <bool kTransposed>
void load_matrices(std::uint32_t (&parts)[4], const Shared<BFloat16>& from, int row_begin,
                   emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) {
  const BFloat16* row = from.address(row_begin, 8);
  check_aligned<BFloat16, 8>(row, row_begin, "shared");
  from.touch(row_begin, 8, emulation::Access::read);
  load_matrices_of_warp(parts, row, kTransposed, site);
}

template <typename T>
void copy_async(const Shared<T>& to, int i, const Span<const T>& from, std::int64_t j, bool valid) {
  constexpr int kCount = 16 / sizeof(T);
  T* target = to.address(i, kCount);
  check_aligned<T, kCount>(target, i, "shared");
  const T* source = valid ? from.address(j, kCount) : nullptr;
  if (valid) check_aligned<T, kCount>(source, j, "global");
  to.touch(i, kCount, emulation::Access::begin_copy);
  emulation::queue_copy([=] {
    to.touch(i, kCount, emulation::Access::write);
    if (valid)
      std::memcpy(static_cast<void*>(target), source, 16);
    else
      std::memset(static_cast<void*>(target), 0, 16);
  });
}
inline void commit_copies() { emulation::commit_copies(); }
template <int N>
void wait_copies() {
  emulation::wait_copies(N);
}

}  // namespace lectern::cuda
