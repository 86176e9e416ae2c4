// NCCL for processes of one machine without a GPU: a message is a file in a folder of the group. As
// the real one, it matches messages between two ranks by order alone, runs the operations of a
// stream one after the other, lets those of one group of calls move on together, and never waits in
// a call. The first exchange between two ranks connects them: the group of calls is in progress
// until both have come. What the real one does not promise, it refuses: calls on a group in
// progress, and exchanges of two groups at once. Messages of another length than is waited for are
// remote errors.
#include "core/dtype.h"
#include "core/io/file.h"
#include "distributed/nccl/library.h"
#include "distributed/reduce_parts.h"
#include "tests/cuda_emulation/device_memory.h"

#include <nccl.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

struct EmulatedGroup {
  std::filesystem::path folder;
  int rank = 0, ranks = 1;
  ncclResult_t failed = ncclSuccess;
  const char* waits_for = nullptr;         // marks of all ranks: "here", "left"
  std::map<int, std::uint64_t> sent, got;  // messages by peer
  std::set<std::string> connected;         // the ends that this rank has brought
  std::vector<std::string> awaited;        // the other ranks' ends of these
  bool exchanges = false;                  // ranks of the whole group, not one to one

  void mark(const char* what) {
    lectern::write_file(folder / fmt::format("{}.{}", what, rank), "");
    waits_for = what;
  }
  bool gone() const { return !std::filesystem::exists(folder); }  // the others have left
  bool is_complete() const {
    if (gone()) return true;
    for (int r = 0; r < ranks; ++r)
      if (!std::filesystem::exists(folder / fmt::format("{}.{}", waits_for, r))) return false;
    return true;
  }

  /// Brings this rank's end of a connection, and waits for the other one from now on.
  void connect(const std::string& own, const std::string& other) {
    if (!connected.insert(own).second) return;
    lectern::write_file(folder / own, "");
    awaited.push_back(other);
  }
  bool is_connected() {
    std::erase_if(awaited,
                  [&](const std::string& end) { return std::filesystem::exists(folder / end); });
    return awaited.empty();
  }

  void send(int peer, const void* data, std::size_t bytes) {
    std::string content(bytes, '\0');
    {
      const lectern::emulation::DeviceAccess open;
      std::memcpy(content.data(), data, bytes);
    }
    const std::string name = fmt::format("message.{}.{}.{}", rank, peer, sent[peer]++);
    lectern::write_file(folder / (name + ".part"), content);
    std::filesystem::rename(folder / (name + ".part"), folder / name);
  }
  /// The next message of a peer, when it is there.
  std::optional<std::string> receive(int peer, std::size_t bytes) {
    const auto path = folder / fmt::format("message.{}.{}.{}", peer, rank, got[peer]);
    if (!std::filesystem::exists(path)) return std::nullopt;
    ++got[peer];
    std::string content = lectern::read_file(path);
    std::filesystem::remove(path);
    if (content.size() != bytes) {
      failed = ncclRemoteError;
      content.resize(bytes);
    }
    return content;
  }
};

namespace {

using lectern::DType;
using Work = std::function<bool()>;

using Ends = std::vector<std::pair<std::string, std::string>>;  // own and other, of connections
struct Call {
  cudaStream_t stream;
  ncclComm_t group;
  Ends ends;
  Work work;
};
std::vector<Call> group_of_calls;
/// The group of ranks whose exchange is under way.
ncclComm_t exchanging = nullptr;

DType dtype_of(ncclDataType_t type) {
  switch (type) {
    case ncclInt32:
      return DType::i32;
    case ncclInt64:
      return DType::i64;
    case ncclFloat32:
      return DType::f32;
    case ncclFloat64:
      return DType::f64;
    case ncclBfloat16:
      return DType::bf16;
    case ncclUint8:
      break;
  }
  return DType::u8;
}

lectern::Reduction reduction_of(ncclRedOp_t op) {
  return op == ncclSum   ? lectern::Reduction::sum
         : op == ncclMax ? lectern::Reduction::max
                         : lectern::Reduction::min;
}

std::size_t bytes_of(std::size_t count, ncclDataType_t type) {
  return count * lectern::size_of(dtype_of(type));
}

/// One end of a connection between two ranks; none is needed to oneself.
std::string end_of(const char* what, int of, int with) {
  return of == with ? "" : fmt::format("{}.{}.{}", what, of, with);
}

bool is_on_device(const void* data, std::size_t bytes) {
  return lectern::emulation::is_device_range(data, bytes);
}

ncclResult_t add(cudaStream_t stream, ncclComm_t group, Ends ends, Work work) {
  if (!group->is_connected()) return ncclInvalidUsage;
  group_of_calls.push_back({stream, group, std::move(ends), std::move(work)});
  return ncclSuccess;
}
/// One that all ranks take part in; which connections they need is not told apart.
ncclResult_t add_exchange(cudaStream_t stream, ncclComm_t group, Work work) {
  group->exchanges = true;
  Ends ends;
  for (int r = 0; r < group->ranks; ++r)
    if (r != group->rank)
      ends.emplace_back(end_of("all", group->rank, r), end_of("all", r, group->rank));
  return add(stream, group, std::move(ends), std::move(work));
}

/// Sends `bytes` from `from` + r x `step` to every other rank, then hands what came from all, this
/// rank's own part among them, to `take`.
Work exchange(ncclComm_t group, const char* from, std::size_t step, std::size_t bytes,
              std::function<void(const std::vector<std::string>&)> take) {
  auto parts = std::make_shared<std::vector<std::optional<std::string>>>();
  return [=] {
    const auto self = static_cast<std::size_t>(group->rank);
    if (parts->empty()) {
      parts->resize(static_cast<std::size_t>(group->ranks));
      const lectern::emulation::DeviceAccess open;
      for (int r = 0; r < group->ranks; ++r)
        if (r != group->rank) group->send(r, from + static_cast<std::size_t>(r) * step, bytes);
      (*parts)[self] = std::string(from + self * step, bytes);
    }
    bool all = true;
    for (int r = 0; r < group->ranks; ++r) {
      auto& part = (*parts)[static_cast<std::size_t>(r)];
      if (!part) part = group->receive(r, bytes);
      all = all && part.has_value();
    }
    if (!all) return false;
    std::vector<std::string> values;
    for (auto& part : *parts) values.push_back(std::move(*part));
    const lectern::emulation::DeviceAccess open;
    take(values);
    return true;
  };
}

std::function<void(const std::vector<std::string>&)> reduced_into(void* to, std::size_t count,
                                                                  ncclDataType_t type,
                                                                  ncclRedOp_t op) {
  return [=](const std::vector<std::string>& parts) {
    std::vector<const void*> terms;
    for (const std::string& part : parts) terms.push_back(part.data());
    std::string sum(bytes_of(count, type), '\0');
    lectern::reduce_parts(terms, sum.data(), static_cast<std::int64_t>(count), dtype_of(type),
                          reduction_of(op));
    std::memcpy(to, sum.data(), sum.size());
  };
}

}  // namespace

const char* ncclGetErrorString(ncclResult_t result) {
  if (result == ncclInvalidUsage) return "invalid usage: two groups at once, or one in progress";
  return result == ncclRemoteError ? "remote process exited or there was a network error"
                                   : "invalid argument";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::string name = (std::filesystem::temp_directory_path() / "lectern-nccl-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr || name.size() >= kNcclIdBytes) return ncclInvalidArgument;
  std::strcpy(id->internal, name.c_str());
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* group, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  if (config->blocking != 0) return ncclInvalidArgument;
  *group = new EmulatedGroup;
  (*group)->folder = id.internal;
  (*group)->rank = rank;
  (*group)->ranks = ranks;
  (*group)->mark("here");
  return ncclInProgress;
}

ncclResult_t ncclCommFinalize(ncclComm_t group) {
  group->mark("left");
  return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t group) {
  std::error_code ignored;
  if (group->rank == 0) std::filesystem::remove_all(group->folder, ignored);
  delete group;
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t group, ncclResult_t* state) {
  *state = group->failed != ncclSuccess                                       ? group->failed
           : group->is_complete() && (group->gone() || group->is_connected()) ? ncclSuccess
                                                                              : ncclInProgress;
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* from, void* to, std::size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t group, cudaStream_t stream) {
  const std::size_t bytes = bytes_of(count, type);
  if (!is_on_device(from, bytes) || !is_on_device(to, bytes)) return ncclInvalidArgument;
  return add_exchange(
      stream, group,
      exchange(group, static_cast<const char*>(from), 0, bytes, reduced_into(to, count, type, op)));
}

ncclResult_t ncclReduceScatter(const void* from, void* to, std::size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t group, cudaStream_t stream) {
  const std::size_t bytes = bytes_of(count, type);
  if (!is_on_device(from, bytes * static_cast<std::size_t>(group->ranks)) ||
      !is_on_device(to, bytes))
    return ncclInvalidArgument;
  return add_exchange(stream, group,
                      exchange(group, static_cast<const char*>(from), bytes, bytes,
                               reduced_into(to, count, type, op)));
}

ncclResult_t ncclAllGather(const void* from, void* to, std::size_t count, ncclDataType_t type,
                           ncclComm_t group, cudaStream_t stream) {
  const std::size_t bytes = bytes_of(count, type);
  if (!is_on_device(from, bytes) ||
      !is_on_device(to, bytes * static_cast<std::size_t>(group->ranks)))
    return ncclInvalidArgument;
  return add_exchange(stream, group,
                      exchange(group, static_cast<const char*>(from), 0, bytes,
                               [to](const std::vector<std::string>& parts) {
                                 auto* at = static_cast<char*>(to);
                                 for (const std::string& part : parts) {
                                   std::memcpy(at, part.data(), part.size());
                                   at += part.size();
                                 }
                               }));
}

ncclResult_t ncclSend(const void* from, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t group, cudaStream_t stream) {
  const std::size_t bytes = bytes_of(count, type);
  if (!is_on_device(from, bytes)) return ncclInvalidArgument;
  return add(stream, group,
             {{end_of("send", group->rank, peer), end_of("receive", peer, group->rank)}}, [=] {
               group->send(peer, from, bytes);
               return true;
             });
}

ncclResult_t ncclRecv(void* to, std::size_t count, ncclDataType_t type, int peer, ncclComm_t group,
                      cudaStream_t stream) {
  const std::size_t bytes = bytes_of(count, type);
  if (!is_on_device(to, bytes)) return ncclInvalidArgument;
  return add(stream, group,
             {{end_of("receive", group->rank, peer), end_of("send", peer, group->rank)}}, [=] {
               const auto message = group->receive(peer, bytes);
               if (!message) return false;
               const lectern::emulation::DeviceAccess open;
               std::memcpy(to, message->data(), bytes);
               return true;
             });
}

ncclResult_t ncclReduce(const void* from, void* to, std::size_t count, ncclDataType_t type,
                        ncclRedOp_t op, int root, ncclComm_t group, cudaStream_t stream) {
  if (group->rank != root) return ncclSend(from, count, type, root, group, stream);
  const std::size_t bytes = bytes_of(count, type);
  if (!is_on_device(from, bytes) || !is_on_device(to, bytes)) return ncclInvalidArgument;
  auto parts = std::make_shared<std::vector<std::string>>();
  return add_exchange(stream, group, [=] {
    while (static_cast<int>(parts->size()) < group->ranks) {
      const lectern::emulation::DeviceAccess open;
      const int next = static_cast<int>(parts->size());
      std::optional<std::string> part;
      if (next == root)
        part = std::string(static_cast<const char*>(from), bytes);
      else
        part = group->receive(next, bytes);
      if (!part) return false;
      parts->push_back(std::move(*part));
    }
    const lectern::emulation::DeviceAccess open;
    reduced_into(to, count, type, op)(*parts);
    return true;
  });
}

ncclResult_t ncclBroadcast(const void* from, void* to, std::size_t count, ncclDataType_t type,
                           int root, ncclComm_t group, cudaStream_t stream) {
  if (group->rank != root) return ncclRecv(to, count, type, root, group, stream);
  const std::size_t bytes = bytes_of(count, type);
  if (!is_on_device(from, bytes) || !is_on_device(to, bytes)) return ncclInvalidArgument;
  return add_exchange(stream, group, [=] {
    for (int r = 0; r < group->ranks; ++r)
      if (r != root) group->send(r, from, bytes);
    const lectern::emulation::DeviceAccess open;
    std::memmove(to, from, bytes);
    return true;
  });
}

ncclResult_t ncclGroupStart() {
  group_of_calls.clear();
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (group_of_calls.empty()) return ncclSuccess;
  const std::vector<Call> calls = std::exchange(group_of_calls, {});
  const cudaStream_t stream = calls.front().stream;
  const ncclComm_t group = calls.front().group;
  auto works = std::make_shared<std::vector<Work>>();
  for (const Call& call : calls) {
    if (call.stream != stream || call.group != group) return ncclInvalidArgument;
    for (const auto& [own, other] : call.ends)
      if (!own.empty()) group->connect(own, other);
    works->push_back(call.work);
  }
  stream->add([works, group] {
    if (group->exchanges) {
      if (exchanging != nullptr && exchanging != group) group->failed = ncclInvalidUsage;
      exchanging = group;
    }
    std::erase_if(*works, [](Work& work) { return work(); });
    if (works->empty() && exchanging == group) exchanging = nullptr;
    return works->empty();
  });
  return group->is_connected() ? ncclSuccess : ncclInProgress;
}

namespace lectern {

const NcclLibrary& nccl_library() {
  static const NcclLibrary library = {
      .error_string = ncclGetErrorString,
      .get_unique_id = ncclGetUniqueId,
      .init_rank = ncclCommInitRankConfig,
      .finalize = ncclCommFinalize,
      .destroy = ncclCommDestroy,
      .async_error = ncclCommGetAsyncError,
      .all_reduce = ncclAllReduce,
      .reduce_scatter = ncclReduceScatter,
      .all_gather = ncclAllGather,
      .reduce = ncclReduce,
      .broadcast = ncclBroadcast,
      .send = ncclSend,
      .receive = ncclRecv,
      .group_start = ncclGroupStart,
      .group_end = ncclGroupEnd,
  };
  return library;
}

}  // namespace lectern
