// One NCCL communicator with a stream of its own, and what is under way on it.
//
// Every connection has its own stream. Work on it waits for what the compute stream had been given
// by then; whoever waits for an operation holds the host until the stream is through with it, so
// that memory may be used again at once, and a rank that does not answer is noticed.
//
// NCCL promises no progress to two communicators that are at work at once (NVIDIA/nccl#195, #783):
// where the device has no room for both, one rank may run the first and another the second, and
// both wait for ever. So exchanges of whole groups take turns, each behind the one before, in the
// order of the program, which is the same on all ranks.
#pragma once

#include "core/tensor.h"
#include "distributed/communicator.h"
#include "distributed/nccl/library.h"

#include <cuda_runtime.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace lectern::nccl {

class Pending;

/// What all connections of the process share.
class Job {
 public:
  /// While the job lives, ranks that wait in MPI move it on too, as those that wait here move
  /// `host` on.
  explicit Job(std::shared_ptr<Communicator> host);
  ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  void progress();

  /// Makes `stream` wait for the exchange that took the last turn.
  void await_turn(cudaStream_t stream) const;
  /// What `stream` was given so far is the last turn.
  void end_turn(cudaStream_t stream);

  std::vector<std::shared_ptr<Pending>> pending;
  std::vector<std::function<void()>> channels;  ///< each starts sends whose receivers are there

 private:
  void progress_here();

  std::shared_ptr<Communicator> host_;
  cudaEvent_t last_turn_ = nullptr;
};

/// Throws RankError naming the call unless CUDA did it.
void check_cuda(cudaError_t status, const char* call);

class Connection {
 public:
  /// Collective over `host`, which carries the unique id; this rank's part of it runs on `device`.
  /// Throws RankError when NCCL refuses or the other ranks do not come within the wait limit. `job`
  /// outlives all launches.
  Connection(Communicator& host, Device device, Job& job);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  ncclComm_t communicator() const { return communicator_; }
  cudaStream_t stream() const { return stream_; }

  /// Makes the stream wait for all that computation was given so far.
  cudaEvent_t mark_ready() const;
  /// `f` calls NCCL on stream(), after `ready`; returns the event that follows it. While NCCL is
  /// still connecting ranks, what else the job waits for moves on, and is_busy() is true: no other
  /// call may be made on this connection then.
  cudaEvent_t launch(cudaEvent_t ready, const char* name, const std::function<void()>& f);
  bool is_busy() const { return busy_; }
  /// Throws RankError with `name` and NCCL's reason when the communicator has failed.
  void check_alive(const std::string& name) const;
  /// Of a call inside launch().
  void check(ncclResult_t result, const char* call) const;

 private:
  void settle(ncclResult_t result, const std::string& name, Job* meanwhile = nullptr) const;

  Device device_;
  Job* job_;
  bool busy_ = false;
  ncclComm_t communicator_ = nullptr;
  cudaStream_t stream_ = nullptr;
};

/// An operation on a connection. A send may be started later than it was asked for.
class Pending final : public Operation {
 public:
  /// `job` outlives all operations that are not done.
  Pending(Job& job, std::shared_ptr<Connection> connection, std::string name,
          std::vector<Tensor> kept)
      : job_(&job),
        connection_(std::move(connection)),
        name_(std::move(name)),
        kept_(std::move(kept)) {}
  ~Pending() override;
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;

  void started(cudaEvent_t done) { done_event_ = done; }
  bool test() override;
  void wait() override;
  bool is_on(const Connection* connection) const { return connection_.get() == connection; }

 private:
  Job* job_;
  std::shared_ptr<Connection> connection_;
  std::string name_;  // "all_reduce: rank 0 of 2"
  std::vector<Tensor> kept_;
  cudaEvent_t done_event_ = nullptr;
  bool done_ = false;
};

}  // namespace lectern::nccl
