// Where groups of ranks come from: one process alone, an MPI job, NCCL.
#pragma once

#include "core/device.h"
#include "distributed/communicator.h"

#include <functional>
#include <memory>

namespace lectern {

/// A rank did not answer in time.
class RankError : public Error {
  using Error::Error;
};

/// A group of this process alone. Everything is done when it is started.
std::shared_ptr<Communicator> make_single_group();

/// Whether this build has MPI.
bool has_mpi();

/// All ranks of the MPI job, for host tensors; a job of one rank when the process was started
/// without mpirun. The first call starts MPI, which ends when the last group is gone and the
/// process ends in order. Throws ConfigError when built without MPI.
///
/// MPI_THREAD_FUNNELED is enough: the thread that trains makes every call, and operations move on
/// in its waits and between the operations of backward. A thread of its own for communication would
/// need MPI_THREAD_MULTIPLE and, polling, would take a core from the computation.
std::shared_ptr<Communicator> make_mpi_group();

/// How long any wait for other ranks may take before it throws RankError, which names the ranks
/// that have not answered; for all groups of the process. 0: for ever, which is what it is at
/// first.
void set_wait_limit(double seconds);
double wait_limit();

/// Called again and again while this process waits in an MPI group, by the thread that waits; an
/// empty function ends it. For what must go on meanwhile and MPI knows nothing of.
void set_idle_work(std::function<void()> work);

/// Whether this build has NCCL.
bool has_nccl();

/// A group of the same ranks as `host` for tensors on `device`, which each rank has one of, and for
/// those on the host, which go through `host`; it carries NCCL's unique id too. Sums on the device
/// are added in the order of NCCL's rings and trees, bf16 in bf16: the same machines give the same
/// bits, another layout of ranks other ones. Throws ConfigError when the build or the machine has
/// no NCCL.
std::shared_ptr<Communicator> make_nccl_group(const std::shared_ptr<Communicator>& host,
                                              Device device);

}  // namespace lectern
