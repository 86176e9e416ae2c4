// Groups of an MPI job. Every operation is made of non-blocking messages between two ranks and of
// local arithmetic in the order of ranks: the sums do not depend on which algorithm MPI would
// choose for a size, and a wait that takes too long knows whom it waits for.
#include "core/stopwatch.h"
#include "distributed/groups.h"

#include <atomic>
#include <functional>

#ifdef LECTERN_HAS_MPI
#include "distributed/reduce_parts.h"

#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <thread>
#endif

namespace lectern {
namespace {

std::atomic<double> wait_limit_seconds{0};

std::function<void()>& idle_work() {
  static std::function<void()> work;
  return work;
}

}  // namespace

void set_wait_limit(double seconds) { wait_limit_seconds = seconds; }
double wait_limit() { return wait_limit_seconds; }
void set_idle_work(std::function<void()> work) { idle_work() = std::move(work); }

#ifndef LECTERN_HAS_MPI

bool has_mpi() { return false; }

std::shared_ptr<Communicator> make_mpi_group() {
  fail<ConfigError>(
      "several ranks: this build of lectern has no MPI; install libopenmpi-dev and openmpi-bin "
      "(scripts/install-deps.sh) and build again");
}

#else

namespace {

class MpiOperation;

/// What all groups of the process share: MPI itself, and the operations that are under way. A rank
/// that waits for one operation moves all of them on, because others may wait for their next step.
struct MpiJob {
  MpiJob();
  ~MpiJob();
  void progress();

  std::vector<std::shared_ptr<MpiOperation>> pending;
};

/// Messages under way, and what to do when all of them are through: more messages, arithmetic.
class MpiOperation final : public Operation {
 public:
  using Step = std::function<void()>;

  MpiOperation(std::shared_ptr<MpiJob> job, const Communicator& group, MPI_Comm communicator,
               const char* name)
      : job_(std::move(job)), group_(&group), communicator_(communicator), name_(name) {}

  void send(const void* data, std::int64_t bytes, int peer, int tag) {
    in_chunks(bytes, [&](std::int64_t at, int count) {
      MPI_Isend(static_cast<const char*>(data) + at, count, MPI_BYTE, peer, tag, communicator_,
                add_request(peer));
    });
  }
  void receive(void* data, std::int64_t bytes, int peer, int tag) {
    in_chunks(bytes, [&](std::int64_t at, int count) {
      MPI_Irecv(static_cast<char*>(data) + at, count, MPI_BYTE, peer, tag, communicator_,
                add_request(peer));
    });
  }
  /// `step` runs when all messages started before have gone through. Steps run in their order.
  void then(Step step) { steps_.push_back(std::move(step)); }
  /// Memory that must last as long as the operation.
  void keep(const Tensor& tensor) { kept_.push_back(tensor); }

  bool test() override {
    while (!done_) {
      if (!requests_.empty()) {
        int through = 0;
        MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &through,
                    MPI_STATUSES_IGNORE);
        if (through == 0) return false;
        requests_.clear();
        peers_.clear();
      }
      if (steps_.empty()) {
        done_ = true;
        kept_.clear();
      } else {
        const Step step = std::move(steps_.front());
        steps_.pop_front();
        step();
      }
    }
    return true;
  }

  void wait() override {
    const Stopwatch watch;
    for (std::int64_t round = 0; !done_; ++round) {
      job_->progress();
      if (done_) return;
      if (idle_work()) idle_work()();
      if (round < 100) continue;
      const double waited = watch.seconds();
      const double limit = wait_limit_seconds;
      if (limit > 0 && waited > limit) give_up(waited);
      // Ranks may outnumber cores: after a while the core belongs to those who compute.
      if (waited < 2e-3)
        std::this_thread::yield();
      else
        std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }

  bool is_of(const Communicator* group) const { return group_ == group; }

 private:
  /// MPI counts in int.
  template <typename F>
  static void in_chunks(std::int64_t bytes, F&& f) {
    constexpr std::int64_t kChunk = std::int64_t{1} << 30;
    for (std::int64_t at = 0; at < bytes; at += kChunk)
      f(at, static_cast<int>(std::min(kChunk, bytes - at)));
  }

  MPI_Request* add_request(int peer) {
    peers_.push_back(peer);
    return &requests_.emplace_back(MPI_REQUEST_NULL);
  }

  [[noreturn]] void give_up(double seconds) {
    std::vector<int> silent;
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      int through = 0;
      MPI_Request_get_status(requests_[i], &through, MPI_STATUS_IGNORE);
      if (through == 0) silent.push_back(peers_[i]);
    }
    std::sort(silent.begin(), silent.end());
    silent.erase(std::unique(silent.begin(), silent.end()), silent.end());
    fail<RankError>(
        fmt::format("{}: rank {} of {} waited {:.0f} s for rank {}, which did not answer", name_,
                    group_->rank(), group_->size(), seconds, fmt::join(silent, ", ")));
  }

  std::shared_ptr<MpiJob> job_;
  const Communicator* group_;
  MPI_Comm communicator_;
  const char* name_;
  std::vector<MPI_Request> requests_;
  std::vector<int> peers_;  // of the requests
  std::deque<Step> steps_;
  std::vector<Tensor> kept_;
  bool done_ = false;
};

MpiJob::MpiJob() {
  int started = 0, ended = 0, level = 0;
  MPI_Finalized(&ended);
  if (ended != 0) fail<ConfigError>("MPI: this process has left its job, which it can do once");
  MPI_Initialized(&started);
  if (started == 0) MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &level);
  MPI_Query_thread(&level);
  if (level < MPI_THREAD_FUNNELED)
    fail<ConfigError>(
        "MPI: must allow threads beside the one that communicates, got a library "
        "that does not");
}

MpiJob::~MpiJob() {
  // After a failure the other ranks may never come to MPI_Finalize, which would wait for them.
  if (std::uncaught_exceptions() == 0) MPI_Finalize();
}

void MpiJob::progress() {
  for (std::size_t i = 0; i < pending.size();) {
    if (pending[i]->test())
      pending.erase(pending.begin() + static_cast<std::ptrdiff_t>(i));
    else
      ++i;
  }
}

char* bytes_of(const Tensor& tensor) { return static_cast<char*>(tensor.raw()); }

/// Bytes before each part and, last, of all parts.
std::vector<std::int64_t> part_offsets(const RankCounts& counts, std::int64_t row_bytes) {
  std::vector<std::int64_t> out{0};
  for (const std::int64_t count : counts) out.push_back(out.back() + count * row_bytes);
  return out;
}

std::int64_t row_bytes_of(const Tensor& tensor) {
  auto bytes = static_cast<std::int64_t>(size_of(tensor.dtype()));
  for (int i = 1; i < tensor.ndim(); ++i) bytes *= tensor.dim(i);
  return bytes;
}

class MpiGroup final : public Communicator {
 public:
  MpiGroup(std::shared_ptr<MpiJob> job, MPI_Comm collective, MPI_Comm direct)
      : Communicator(rank_in(collective), size_of_group(collective)),
        job_(std::move(job)),
        collective_(collective),
        direct_(direct) {}

  ~MpiGroup() override {
    if (std::uncaught_exceptions() > 0) return;  // the job is about to be ended
    try {
      const auto pending = job_->pending;
      for (const auto& operation : pending)
        if (operation->is_of(this)) operation->wait();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "lectern: %s\n", error.what());
      return;
    }
    MPI_Comm_free(&direct_);
    MPI_Comm_free(&collective_);
  }

  std::string name() const override { return "mpi"; }

  std::shared_ptr<Communicator> split(int color, int key) override {
    // MPI's own call blocks without moving our operations on: come together first.
    do_barrier().wait();
    MPI_Comm part = MPI_COMM_NULL, direct = MPI_COMM_NULL;
    MPI_Comm_split(collective_, color < 0 ? MPI_UNDEFINED : color, key, &part);
    if (part == MPI_COMM_NULL) return nullptr;
    MPI_Comm_dup(part, &direct);
    return std::make_shared<MpiGroup>(job_, part, direct);
  }

  void progress() override { job_->progress(); }

  [[noreturn]] void abort(int status) noexcept override {
    std::fflush(nullptr);
    MPI_Abort(MPI_COMM_WORLD, status);
    std::_Exit(status);
  }

 private:
  static int rank_in(MPI_Comm communicator) {
    int rank = 0;
    MPI_Comm_rank(communicator, &rank);
    return rank;
  }
  static int size_of_group(MPI_Comm communicator) {
    int size = 0;
    MPI_Comm_size(communicator, &size);
    return size;
  }

  std::shared_ptr<MpiOperation> make(const char* name) {
    return std::make_shared<MpiOperation>(job_, *this, collective_, name);
  }
  Handle start(std::shared_ptr<MpiOperation> operation) {
    job_->pending.push_back(operation);
    return Handle(std::move(operation));
  }
  /// Two tags for one collective, of its first and of its second round of messages: groups of ranks
  /// that run ahead must not take one operation's messages for another's.
  int next_tags() {
    const int tag = 2 * sequence_;
    sequence_ = (sequence_ + 1) % 16384;
    return tag;
  }

  /// Messages of one round: part r of `from` goes to rank r, part r of `to` comes from there. This
  /// rank's own part is left to the caller. Receives are posted first, to be there when data comes.
  void exchange(MpiOperation& operation, const char* from, const std::vector<std::int64_t>& send,
                char* to, const std::vector<std::int64_t>& receive, int tag) const {
    for (int i = 1; i < size(); ++i) {
      const int peer = (rank() + size() - i) % size();
      const auto p = static_cast<std::size_t>(peer);
      operation.receive(to + receive[p], receive[p + 1] - receive[p], peer, tag);
    }
    for (int i = 1; i < size(); ++i) {
      const int peer = (rank() + i) % size();
      const auto p = static_cast<std::size_t>(peer);
      operation.send(from + send[p], send[p + 1] - send[p], peer, tag);
    }
  }

  void gather(MpiOperation& operation, const char* own, char* to,
              const std::vector<std::int64_t>& parts, int tag) const {
    const auto self = static_cast<std::size_t>(rank());
    const std::int64_t bytes = parts[self + 1] - parts[self];
    if (own != to + parts[self] && bytes > 0)
      std::memmove(to + parts[self], own, static_cast<std::size_t>(bytes));
    for (int i = 1; i < size(); ++i) {
      const int peer = (rank() + size() - i) % size();
      const auto p = static_cast<std::size_t>(peer);
      operation.receive(to + parts[p], parts[p + 1] - parts[p], peer, tag);
    }
    for (int i = 1; i < size(); ++i)
      operation.send(to + parts[self], bytes, (rank() + i) % size(), tag);
  }

  /// Starts `output` := reduction over ranks of part number rank() of `input`.
  void add_reduce_scatter(const std::shared_ptr<MpiOperation>& operation, char* input, char* output,
                          const std::vector<std::int64_t>& parts, DType dtype, Reduction reduction,
                          int tag) const {
    const auto self = static_cast<std::size_t>(rank());
    const std::int64_t bytes = parts[self + 1] - parts[self];
    const Tensor received = Tensor::empty({bytes * (size() - 1)}, DType::u8);
    operation->keep(received);
    std::vector<const void*> terms(static_cast<std::size_t>(size()));
    std::int64_t at = 0;
    for (int peer = 0; peer < size(); ++peer) {
      const auto p = static_cast<std::size_t>(peer);
      terms[p] = peer == rank() ? input + parts[self] : bytes_of(received) + at;
      if (peer == rank()) continue;
      operation->receive(bytes_of(received) + at, bytes, peer, tag);
      at += bytes;
    }
    for (int i = 1; i < size(); ++i) {
      const int peer = (rank() + i) % size();
      const auto p = static_cast<std::size_t>(peer);
      operation->send(input + parts[p], parts[p + 1] - parts[p], peer, tag);
    }
    const auto count = bytes / static_cast<std::int64_t>(size_of(dtype));
    operation->then([terms = std::move(terms), output, count, dtype, reduction] {
      if (count > 0) reduce_parts(terms, output, count, dtype, reduction);
    });
  }

  Handle do_all_reduce(const Tensor& tensor, Reduction reduction) override {
    if (size() == 1 || tensor.numel() == 0) return {};
    auto operation = make("all_reduce");
    operation->keep(tensor);
    const int tag = next_tags();
    const auto element = static_cast<std::int64_t>(size_of(tensor.dtype()));
    // Small: every rank sends all it has and adds for itself, one round of messages instead of two.
    // The additions, and so the bits, are the same.
    constexpr std::size_t kSmall = 16 << 10;
    const bool small = tensor.bytes() <= kSmall;
    std::vector<std::int64_t> parts{0};
    for (int r = 1; r <= size(); ++r) parts.push_back(tensor.numel() * r / size() * element);
    if (small) {
      add_small_all_reduce(operation, tensor, reduction, tag);
    } else {
      char* data = bytes_of(tensor);
      char* own = data + parts[static_cast<std::size_t>(rank())];
      add_reduce_scatter(operation, data, own, parts, tensor.dtype(), reduction, tag);
      operation->then([this, data, own, parts, tag, raw = operation.get()] {
        gather(*raw, own, data, parts, tag + 1);
      });
    }
    return start(std::move(operation));
  }

  void add_small_all_reduce(const std::shared_ptr<MpiOperation>& operation, const Tensor& tensor,
                            Reduction reduction, int tag) const {
    const auto bytes = static_cast<std::int64_t>(tensor.bytes());
    const Tensor received = Tensor::empty({bytes * (size() - 1)}, DType::u8);
    operation->keep(received);
    std::vector<const void*> terms;
    std::int64_t at = 0;
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) {
        terms.push_back(tensor.raw());
        continue;
      }
      terms.push_back(bytes_of(received) + at);
      operation->receive(bytes_of(received) + at, bytes, peer, tag);
      at += bytes;
    }
    for (int i = 1; i < size(); ++i)
      operation->send(tensor.raw(), bytes, (rank() + i) % size(), tag);
    operation->then([terms = std::move(terms), out = tensor.raw(), count = tensor.numel(),
                     dtype = tensor.dtype(),
                     reduction] { reduce_parts(terms, out, count, dtype, reduction); });
  }

  Handle do_reduce_scatter(const Tensor& input, const Tensor& output, const RankCounts& counts,
                           Reduction reduction) override {
    auto operation = make("reduce_scatter");
    operation->keep(input);
    operation->keep(output);
    add_reduce_scatter(operation, bytes_of(input), bytes_of(output),
                       part_offsets(counts, row_bytes_of(input)), input.dtype(), reduction,
                       next_tags());
    return start(std::move(operation));
  }

  Handle do_all_gather(const Tensor& input, const Tensor& output,
                       const RankCounts& counts) override {
    auto operation = make("all_gather");
    operation->keep(input);
    operation->keep(output);
    gather(*operation, bytes_of(input), bytes_of(output),
           part_offsets(counts, row_bytes_of(output)), next_tags());
    return start(std::move(operation));
  }

  Handle do_all_to_all(const Tensor& input, const RankCounts& send_counts, const Tensor& output,
                       const RankCounts& receive_counts) override {
    auto operation = make("all_to_all");
    operation->keep(input);
    operation->keep(output);
    const std::int64_t row = row_bytes_of(input);
    const auto send = part_offsets(send_counts, row), receive = part_offsets(receive_counts, row);
    const auto self = static_cast<std::size_t>(rank());
    if (const auto own = static_cast<std::size_t>(send[self + 1] - send[self]); own > 0)
      std::memcpy(bytes_of(output) + receive[self], bytes_of(input) + send[self], own);
    exchange(*operation, bytes_of(input), send, bytes_of(output), receive, next_tags());
    return start(std::move(operation));
  }

  Handle do_broadcast(const Tensor& tensor, int root) override {
    auto operation = make("broadcast");
    operation->keep(tensor);
    const int tag = next_tags();
    const auto bytes = static_cast<std::int64_t>(tensor.bytes());
    if (rank() != root) {
      operation->receive(tensor.raw(), bytes, root, tag);
    } else {
      for (int i = 1; i < size(); ++i)
        operation->send(tensor.raw(), bytes, (rank() + i) % size(), tag);
    }
    return start(std::move(operation));
  }

  Handle do_send(const Tensor& tensor, int destination, int tag) override {
    auto operation = std::make_shared<MpiOperation>(job_, *this, direct_, "send");
    operation->keep(tensor);
    operation->send(tensor.raw(), static_cast<std::int64_t>(tensor.bytes()), destination, tag);
    return start(std::move(operation));
  }

  Handle do_receive(const Tensor& tensor, int source, int tag) override {
    auto operation = std::make_shared<MpiOperation>(job_, *this, direct_, "receive");
    operation->keep(tensor);
    operation->receive(tensor.raw(), static_cast<std::int64_t>(tensor.bytes()), source, tag);
    return start(std::move(operation));
  }

  Handle do_barrier() override {
    auto operation = make("barrier");
    const Tensor marks = Tensor::zeros({size()}, DType::u8);
    operation->keep(marks);
    const RankCounts ones(static_cast<std::size_t>(size()), 1);
    const auto parts = part_offsets(ones, 1);
    gather(*operation, bytes_of(marks) + rank(), bytes_of(marks), parts, next_tags());
    return start(std::move(operation));
  }

  DeviceType device_type() const override { return DeviceType::cpu; }

  std::shared_ptr<MpiJob> job_;
  MPI_Comm collective_;
  MPI_Comm direct_;  // a communicator of its own keeps its tags apart
  int sequence_ = 0;
};

}  // namespace

bool has_mpi() { return true; }

std::shared_ptr<Communicator> make_mpi_group() {
  static std::weak_ptr<MpiJob> running;
  std::shared_ptr<MpiJob> job = running.lock();
  if (!job) running = job = std::make_shared<MpiJob>();
  MPI_Comm collective = MPI_COMM_NULL, direct = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &collective);
  MPI_Comm_dup(MPI_COMM_WORLD, &direct);
  return std::make_shared<MpiGroup>(std::move(job), collective, direct);
}

#endif

}  // namespace lectern
