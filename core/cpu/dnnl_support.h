// The few lines that every use of oneDNN needs.
//
// Primitives are made on each call: oneDNN keeps the compiled ones in a bounded, thread-safe cache
// of its own, and finding one there takes about 4 us. Scratch memory comes from our allocator, so
// that it is counted, and so that a primitive may run on any thread.
#pragma once

#include "core/allocator.h"
#include "core/tensor.h"

#include <oneapi/dnnl/dnnl.hpp>

#include <string_view>
#include <unordered_map>

namespace lectern {

inline const dnnl::engine& dnnl_engine() {
  static const dnnl::engine instance(dnnl::engine::kind::cpu, 0);
  return instance;
}

/// Attributes of every primitive: the caller gives the scratch memory.
inline dnnl::primitive_attr dnnl_attributes() {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attributes;
}

inline dnnl::memory dnnl_memory(const dnnl::memory::desc& layout, void* data) {
  return {layout, dnnl_engine(), data};
}

/// Memory in a layout that only oneDNN knows.
inline Tensor dnnl_tensor(const dnnl::memory::desc& layout) {
  return Tensor::empty({static_cast<std::int64_t>(layout.get_size())}, DType::u8);
}

/// Runs a primitive and waits for it.
inline void dnnl_run(const dnnl::primitive& primitive, const dnnl::memory::desc& scratch_layout,
                     std::unordered_map<int, dnnl::memory> arguments) {
  thread_local dnnl::stream stream(dnnl_engine());
  const Tensor scratch = dnnl_tensor(scratch_layout);
  arguments.emplace(DNNL_ARG_SCRATCHPAD, dnnl_memory(scratch_layout, scratch.raw()));
  primitive.execute(stream, arguments);
  stream.wait();
}

/// Copies between layouts.
inline void dnnl_reorder(const dnnl::memory& from, const dnnl::memory& to) {
  const dnnl::reorder::primitive_desc description(from, to, dnnl_attributes());
  dnnl_run(dnnl::reorder(description), description.scratchpad_desc(),
           {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
}

/// To be called before primitives are made: oneDNN does not look whether it got memory for compiled
/// code, and crashes. A primitive is some kernels, each in a buffer of 256 KiB that may double.
inline void require_memory_for_code() {
  require_memory(std::size_t{16} << 20, "oneDNN: compiled code");
}

/// Calls f; what oneDNN throws becomes an Error that names the operation.
template <typename F>
decltype(auto) dnnl_guard(std::string_view operation, F&& f) {
  require_memory_for_code();
  try {
    return f();
  } catch (const dnnl::error& error) {
    fail<Error>(fmt::format("{}: oneDNN: {}", operation, error.what()));
  }
}

}  // namespace lectern
