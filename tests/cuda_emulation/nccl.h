// As much of NCCL's interface as distributed/nccl/ uses, answered by nccl.cpp of this folder:
// messages between processes of this machine through files.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

using ncclComm_t = struct EmulatedGroup*;
inline constexpr std::size_t kNcclIdBytes = 128;
struct ncclUniqueId {
  char internal[kNcclIdBytes];
};
enum ncclResult_t {
  ncclSuccess,
  ncclInvalidArgument,
  ncclInvalidUsage,
  ncclRemoteError,
  ncclInProgress
};
enum ncclDataType_t { ncclUint8, ncclInt32, ncclInt64, ncclFloat32, ncclFloat64, ncclBfloat16 };
enum ncclRedOp_t { ncclSum, ncclMax, ncclMin };
struct ncclConfig_t {
  int blocking;
};
inline constexpr ncclConfig_t NCCL_CONFIG_INITIALIZER = {1};

const char* ncclGetErrorString(ncclResult_t result);
ncclResult_t ncclGetUniqueId(ncclUniqueId* id);
ncclResult_t ncclCommInitRankConfig(ncclComm_t* group, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config);
ncclResult_t ncclCommFinalize(ncclComm_t group);
ncclResult_t ncclCommDestroy(ncclComm_t group);
ncclResult_t ncclCommGetAsyncError(ncclComm_t group, ncclResult_t* state);
ncclResult_t ncclAllReduce(const void* from, void* to, std::size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t group, cudaStream_t stream);
ncclResult_t ncclReduceScatter(const void* from, void* to, std::size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t group, cudaStream_t stream);
ncclResult_t ncclAllGather(const void* from, void* to, std::size_t count, ncclDataType_t type,
                           ncclComm_t group, cudaStream_t stream);
ncclResult_t ncclReduce(const void* from, void* to, std::size_t count, ncclDataType_t type,
                        ncclRedOp_t op, int root, ncclComm_t group, cudaStream_t stream);
ncclResult_t ncclBroadcast(const void* from, void* to, std::size_t count, ncclDataType_t type,
                           int root, ncclComm_t group, cudaStream_t stream);
ncclResult_t ncclSend(const void* from, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t group, cudaStream_t stream);
ncclResult_t ncclRecv(void* to, std::size_t count, ncclDataType_t type, int peer, ncclComm_t group,
                      cudaStream_t stream);
ncclResult_t ncclGroupStart();
ncclResult_t ncclGroupEnd();
