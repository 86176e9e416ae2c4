#include "distributed/nccl/library.h"

#include "core/error.h"

#include <dlfcn.h>

#include <string>

namespace lectern {
namespace {

template <typename F>
void find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(::dlsym(library, name));
  if (function == nullptr)
    fail<ConfigError>(
        fmt::format("ranks on cuda: libnccl.so.2 must have {}, got one without", name));
}

NcclLibrary load() {
  // The loader's own paths first, then where the toolkit that this was built with has it.
  void* library = nullptr;
  for (const char* path : {"libnccl.so.2", LECTERN_NCCL_FOLDER "/libnccl.so.2"}) {
    library = ::dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) break;
  }
  if (library == nullptr)
    fail<ConfigError>(
        fmt::format("ranks on cuda: libnccl.so.2 must be installed (looked for on "
                    "LD_LIBRARY_PATH and in {}): {}",
                    LECTERN_NCCL_FOLDER, ::dlerror()));
  NcclLibrary out;
  find(library, "ncclGetErrorString", out.error_string);
  find(library, "ncclGetUniqueId", out.get_unique_id);
  find(library, "ncclCommInitRankConfig", out.init_rank);
  find(library, "ncclCommFinalize", out.finalize);
  find(library, "ncclCommDestroy", out.destroy);
  find(library, "ncclCommGetAsyncError", out.async_error);
  find(library, "ncclAllReduce", out.all_reduce);
  find(library, "ncclReduceScatter", out.reduce_scatter);
  find(library, "ncclAllGather", out.all_gather);
  find(library, "ncclReduce", out.reduce);
  find(library, "ncclBroadcast", out.broadcast);
  find(library, "ncclSend", out.send);
  find(library, "ncclRecv", out.receive);
  find(library, "ncclGroupStart", out.group_start);
  find(library, "ncclGroupEnd", out.group_end);
  return out;
}

}  // namespace

const NcclLibrary& nccl_library() {
  static const NcclLibrary library = load();
  return library;
}

}  // namespace lectern
