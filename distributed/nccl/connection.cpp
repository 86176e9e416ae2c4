#include "distributed/nccl/connection.h"

#include "core/device_backend.h"
#include "core/stopwatch.h"
#include "distributed/groups.h"

#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <thread>

namespace lectern::nccl {
namespace {

/// Rounds of a wait: whether the limit has passed, and a rest for the core when it takes long.
class Patience {
 public:
  /// False when the time is up.
  bool rest() {
    const double waited = watch_.seconds();
    const double limit = wait_limit();
    if (limit > 0 && waited > limit) return false;
    if (waited > 2e-3)
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    else
      std::this_thread::yield();
    return true;
  }
  double seconds() const { return watch_.seconds(); }

 private:
  Stopwatch watch_;
};

cudaEvent_t new_event() {
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
  return event;
}

cudaStream_t compute_stream(Device device) {
  return static_cast<cudaStream_t>(device_backend(device).compute_queue(device));
}

}  // namespace

void check_cuda(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();
  fail<RankError>(fmt::format("nccl: {} must succeed, got {} ({})", call, cudaGetErrorName(status),
                              cudaGetErrorString(status)));
}

Job::Job(std::shared_ptr<Communicator> host) : host_(std::move(host)) {
  set_idle_work([this] { progress_here(); });
}
Job::~Job() {
  set_idle_work({});
  if (last_turn_ != nullptr) (void)cudaEventDestroy(last_turn_);
}

void Job::await_turn(cudaStream_t stream) const {
  if (last_turn_ != nullptr)
    check_cuda(cudaStreamWaitEvent(stream, last_turn_, 0), "cudaStreamWaitEvent");
}

void Job::end_turn(cudaStream_t stream) {
  if (last_turn_ == nullptr) last_turn_ = new_event();
  check_cuda(cudaEventRecord(last_turn_, stream), "cudaEventRecord");
}

void Job::progress() {
  host_->progress();
  progress_here();
}

void Job::progress_here() {
  for (const auto& channel : channels) channel();
  for (std::size_t i = 0; i < pending.size();) {
    if (pending[i]->test())
      pending.erase(pending.begin() + static_cast<std::ptrdiff_t>(i));
    else
      ++i;
  }
}

Connection::Connection(Communicator& host, Device device, Job& job) : device_(device), job_(&job) {
  const NcclLibrary& library = nccl_library();
  ncclUniqueId id{};
  if (host.rank() == 0) check(library.get_unique_id(&id), "ncclGetUniqueId");
  const Tensor bytes = Tensor::empty({static_cast<std::int64_t>(sizeof id)}, DType::u8);
  std::memcpy(bytes.raw(), &id, sizeof id);
  host.broadcast(bytes, 0);
  std::memcpy(&id, bytes.raw(), sizeof id);
  // Not blocking: a rank that never comes must be noticed.
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  settle(library.init_rank(&communicator_, host.size(), id, host.rank(), &config),
         fmt::format("nccl: making a group: rank {} of {}", host.rank(), host.size()));
  check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
}

Connection::~Connection() {
  // After a failure destroying would wait for ranks that are gone: the job is about to be ended.
  if (std::uncaught_exceptions() > 0) return;
  try {
    settle(nccl_library().finalize(communicator_), "nccl: leaving a group");
    check(nccl_library().destroy(communicator_), "ncclCommDestroy");
    check_cuda(cudaStreamDestroy(stream_), "cudaStreamDestroy");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lectern: %s\n", error.what());
  }
}

void Connection::settle(ncclResult_t result, const std::string& name, Job* meanwhile) const {
  Patience patience;
  while (result == ncclInProgress) {
    ncclResult_t state = ncclInProgress;
    result = nccl_library().async_error(communicator_, &state);
    if (result == ncclSuccess) result = state;
    if (result == ncclInProgress && meanwhile != nullptr) meanwhile->progress();
    if (result == ncclInProgress && !patience.rest())
      fail<RankError>(fmt::format("{} waited {:.0f} s for the other ranks, which did not answer",
                                  name, patience.seconds()));
  }
  check(result, name.c_str());
}

void Connection::check(ncclResult_t result, const char* call) const {
  if (result == ncclSuccess || result == ncclInProgress) return;
  fail<RankError>(
      fmt::format("{}: NCCL must succeed, got {}", call, nccl_library().error_string(result)));
}

void Connection::check_alive(const std::string& name) const {
  ncclResult_t state = ncclSuccess;
  check(nccl_library().async_error(communicator_, &state), name.c_str());
  check(state, name.c_str());
}

cudaEvent_t Connection::mark_ready() const {
  const cudaEvent_t ready = new_event();
  check_cuda(cudaEventRecord(ready, compute_stream(device_)), "cudaEventRecord");
  return ready;
}

cudaEvent_t Connection::launch(cudaEvent_t ready, const char* name,
                               const std::function<void()>& f) {
  const NcclLibrary& library = nccl_library();
  check_cuda(cudaStreamWaitEvent(stream_, ready, 0), "cudaStreamWaitEvent");
  check_cuda(cudaEventDestroy(ready), "cudaEventDestroy");
  check(library.group_start(), name);
  f();
  busy_ = true;
  settle(library.group_end(), name, job_);
  busy_ = false;
  const cudaEvent_t done = new_event();
  check_cuda(cudaEventRecord(done, stream_), "cudaEventRecord");
  return done;
}

Pending::~Pending() {
  if (done_event_ != nullptr) (void)cudaEventDestroy(done_event_);
}

bool Pending::test() {
  if (done_) return true;
  if (done_event_ == nullptr) return false;
  const cudaError_t state = cudaEventQuery(done_event_);
  if (state == cudaErrorNotReady) return false;
  check_cuda(state, name_.c_str());
  done_ = true;
  kept_.clear();
  connection_.reset();  // the group decides when it is left, in one order on all ranks
  return true;
}

void Pending::wait() {
  Patience patience;
  while (!test()) {
    job_->progress();
    if (done_) return;
    connection_->check_alive(name_);
    if (!patience.rest())
      fail<RankError>(
          fmt::format("{} waited {:.0f} s for other ranks on the GPU, which did not "
                      "answer",
                      name_, patience.seconds()));
  }
}

}  // namespace lectern::nccl
