// Groups of ranks with a GPU each: tensors on the device go through NCCL, tensors on the host
// through the group that carried NCCL's unique id (MPI).
//
// send() and receive() between two ranks: NCCL matches by order alone, on both sides. So every
// direction between two neighbours has a connection of its own, on which the receiver says in which
// order it takes: it tells the sender the tag of each receive, over MPI, and the sender starts the
// matching send when it hears of it (in progress() and in waits).
#include "distributed/groups.h"
#include "distributed/nccl/connection.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <numeric>

namespace lectern {
namespace {

using nccl::Connection;
using nccl::Job;
using nccl::Pending;

/// Host messages that say which tag is received next; above those of users.
constexpr int kRequestTag = 32767;

ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return ncclFloat32;
    case DType::f64:
      return ncclFloat64;
    case DType::bf16:
      return ncclBfloat16;
    case DType::i32:
      return ncclInt32;
    case DType::i64:
      return ncclInt64;
    case DType::u8:
      break;
  }
  return ncclUint8;
}

ncclRedOp_t operation_of(Reduction reduction) {
  return reduction == Reduction::sum ? ncclSum : reduction == Reduction::max ? ncclMax : ncclMin;
}

std::size_t count_of(const Tensor& tensor) { return static_cast<std::size_t>(tensor.numel()); }

std::int64_t row_numbers(const Tensor& tensor) {
  std::int64_t out = 1;
  for (int i = 1; i < tensor.ndim(); ++i) out *= tensor.dim(i);
  return out;
}

/// Rows begin .. begin + count - 1 of a tensor: their first byte.
char* row_at(const Tensor& tensor, std::int64_t begin) {
  return static_cast<char*>(tensor.raw()) +
         begin * row_numbers(tensor) * static_cast<std::int64_t>(size_of(tensor.dtype()));
}

/// One direction between this rank and another.
class Channel {
 public:
  Channel(std::shared_ptr<Connection> connection, std::shared_ptr<Communicator> host, int peer,
          bool sends)
      : connection_(std::move(connection)),
        host_(std::move(host)),
        peer_(peer),
        at_(sends ? 0 : 1) {}

  const std::shared_ptr<Connection>& connection() const { return connection_; }

  void send(const Tensor& tensor, int tag, std::shared_ptr<Pending> operation) {
    waiting_.push_back({tensor, tag, connection_->mark_ready(), std::move(operation)});
    Request request{Tensor::empty({1}, DType::i32), {}};
    request.handle = host_->start_receive(request.tag, peer_, kRequestTag);
    requests_.push_back(std::move(request));
    start_sends();
  }

  /// The first exchange, which connects both ends: NCCL holds whoever begins until the other comes,
  /// and in the middle of a step each may wait for another. `operation` is on this channel.
  void greet(const Tensor& one, Pending& operation) {
    operation.started(connection_->launch(connection_->mark_ready(), "greet", [&] {
      const NcclLibrary& nccl = nccl_library();
      const auto group = connection_->communicator();
      const auto stream = connection_->stream();
      if (at_ == 0)
        connection_->check(nccl.send(one.raw(), 1, ncclFloat32, 1, group, stream), "ncclSend");
      else
        connection_->check(nccl.receive(one.raw(), 1, ncclFloat32, 0, group, stream), "ncclRecv");
    }));
    operation.wait();
  }

  /// Sends what the receiver has asked for, in its order.
  void start_sends() {
    while (!connection_->is_busy() && !requests_.empty() && requests_.front().handle.test()) {
      const int tag = requests_.front().tag.data<std::int32_t>()[0];
      const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                      [&](const Waiting& each) { return each.tag == tag; });
      if (found == waiting_.end()) return;  // asked for before it was made
      const Waiting next = std::move(*found);
      waiting_.erase(found);
      requests_.pop_front();
      next.operation->started(connection_->launch(next.ready, "send", [&] {
        connection_->check(nccl_library().send(next.tensor.raw(), count_of(next.tensor),
                                               type_of(next.tensor.dtype()), 1 - at_,
                                               connection_->communicator(), connection_->stream()),
                           "ncclSend");
      }));
    }
  }

  void receive(const Tensor& tensor, int tag, Pending& operation) {
    const Tensor request = Tensor::from(std::vector<std::int32_t>{tag}, {1});
    told_.push_back(host_->start_send(request, peer_, kRequestTag));
    while (!told_.empty() && told_.front().test()) told_.pop_front();
    operation.started(connection_->launch(connection_->mark_ready(), "receive", [&] {
      connection_->check(
          nccl_library().receive(tensor.raw(), count_of(tensor), type_of(tensor.dtype()), 1 - at_,
                                 connection_->communicator(), connection_->stream()),
          "ncclRecv");
    }));
  }

 private:
  struct Waiting {
    Tensor tensor;
    int tag = 0;
    cudaEvent_t ready = nullptr;
    std::shared_ptr<Pending> operation;
  };
  struct Request {
    Tensor tag;
    Handle handle;
  };

  std::shared_ptr<Connection> connection_;
  std::shared_ptr<Communicator> host_;
  int peer_;
  int at_;  // this rank in the connection: the sender is 0
  std::deque<Waiting> waiting_;
  std::deque<Request> requests_;
  std::deque<Handle> told_;
};

class NcclGroup final : public Communicator {
 public:
  NcclGroup(std::shared_ptr<Job> job, std::shared_ptr<Communicator> host, Device device)
      : Communicator(host->rank(), host->size()),
        job_(std::move(job)),
        host_(std::move(host)),
        device_(device) {}

  ~NcclGroup() override {
    if (std::uncaught_exceptions() > 0) return;  // the job is about to be ended
    try {
      if (connection_) finish(connection_.get());
      for (const auto& [edge, each] : channels_)
        if (each) finish(each->connection().get());
    } catch (const std::exception& error) {
      std::fprintf(stderr, "lectern: %s\n", error.what());
    }
  }

  std::string name() const override { return "nccl"; }

  std::shared_ptr<Communicator> split(int color, int key) override {
    std::shared_ptr<Communicator> part = host_->split(color, key);
    return part ? std::make_shared<NcclGroup>(job_, std::move(part), device_) : nullptr;
  }

  void progress() override { job_->progress(); }
  bool prefers_equal_parts() const override { return true; }

  [[noreturn]] void abort(int status) noexcept override {
    host_->abort(status);
    std::_Exit(status);  // gcc forgets that a virtual function does not return
  }

  void prepare() override {
    if (connection_) return;
    connection_ = std::make_shared<Connection>(*host_, device_, *job_);
    if (size() == 1) return;
    // NCCL connects ranks at their first exchange of a kind, and needs all of them there.
    const Tensor numbers = Tensor::zeros({size()}, DType::f32, device_);
    do_all_reduce(numbers, Reduction::sum).wait();
    const RankCounts one(static_cast<std::size_t>(size()), 1);
    do_all_to_all(numbers, one, Tensor::zeros({size()}, DType::f32, device_), one).wait();
  }

  void prepare_neighbours() override {
    if (size() == 1 || !channels_.empty()) return;
    // Edge after edge in one order on all ranks: making a connection waits for its other end.
    for (int from = 0; from < size(); ++from) {
      const int next = (from + 1) % size();
      for (const auto& [source, destination] : {std::pair{from, next}, std::pair{next, from}}) {
        if (channels_.contains({source, destination})) continue;  // a ring of two
        const bool member = rank() == source || rank() == destination;
        const auto pair = host_->split(member ? 0 : -1, rank() == source ? 0 : 1);
        if (!member) {
          channels_[{source, destination}] = nullptr;
          continue;
        }
        auto channel =
            std::make_shared<Channel>(std::make_shared<Connection>(*pair, device_, *job_), host_,
                                      rank() == source ? destination : source, rank() == source);
        channels_[{source, destination}] = channel;
        const Tensor number = Tensor::zeros({1}, DType::f32, device_);
        channel->greet(number, *pending_on(*channel, "greet", number));
        if (rank() == source)
          job_->channels.push_back([weak = std::weak_ptr<Channel>(channel)] {
            if (const auto alive = weak.lock()) alive->start_sends();
          });
      }
    }
  }

 private:
  bool accepts(DeviceType type) const override {
    return type == DeviceType::cpu || type == device_.type;
  }
  DeviceType device_type() const override { return device_.type; }
  static bool on_host(const Tensor& tensor) { return tensor.device().type == DeviceType::cpu; }

  void finish(const Connection* connection) {
    const auto pending = job_->pending;
    for (const auto& each : pending)
      if (each->is_on(connection)) each->wait();
  }

  /// Runs `f` on the group's connection behind what computation was given so far.
  template <typename F>
  Handle start(const char* name, std::vector<Tensor> kept, F&& f) {
    prepare();
    auto operation = std::make_shared<Pending>(
        *job_, connection_, fmt::format("{}: rank {} of {}", name, rank(), size()),
        std::move(kept));
    job_->await_turn(connection_->stream());
    const auto done = connection_->launch(connection_->mark_ready(), name, [&] {
      f(nccl_library(), connection_->communicator(), connection_->stream());
    });
    job_->end_turn(connection_->stream());
    operation->started(done);
    job_->pending.push_back(operation);
    return Handle(std::move(operation));
  }
  void check(ncclResult_t result, const char* call) const { connection_->check(result, call); }

  static bool is_even(const RankCounts& counts) {
    return std::all_of(counts.begin(), counts.end(),
                       [&](std::int64_t count) { return count == counts.front(); });
  }

  Handle do_all_reduce(const Tensor& tensor, Reduction reduction) override {
    if (on_host(tensor)) return host_->start_all_reduce(tensor, reduction);
    if (tensor.numel() == 0) return {};
    return start("all_reduce", {tensor}, [&](const NcclLibrary& nccl, auto group, auto stream) {
      check(nccl.all_reduce(tensor.raw(), tensor.raw(), count_of(tensor), type_of(tensor.dtype()),
                            operation_of(reduction), group, stream),
            "ncclAllReduce");
    });
  }

  Handle do_reduce_scatter(const Tensor& input, const Tensor& output, const RankCounts& counts,
                           Reduction reduction) override {
    if (on_host(input)) return host_->start_reduce_scatter(input, output, counts, reduction);
    if (input.numel() == 0) return {};
    const auto type = type_of(input.dtype());
    const auto op = operation_of(reduction);
    return start("reduce_scatter", {input, output},
                 [&](const NcclLibrary& nccl, auto group, auto stream) {
                   if (is_even(counts)) {
                     check(nccl.reduce_scatter(input.raw(), output.raw(), count_of(output), type,
                                               op, group, stream),
                           "ncclReduceScatter");
                     return;
                   }
                   std::int64_t begin = 0;
                   for (int r = 0; r < size(); ++r) {
                     const std::int64_t rows = counts[static_cast<std::size_t>(r)];
                     const auto numbers = static_cast<std::size_t>(rows * row_numbers(input));
                     if (numbers > 0)
                       check(nccl.reduce(row_at(input, begin), output.raw(), numbers, type, op, r,
                                         group, stream),
                             "ncclReduce");
                     begin += rows;
                   }
                 });
  }

  Handle do_all_gather(const Tensor& input, const Tensor& output,
                       const RankCounts& counts) override {
    if (on_host(input)) return host_->start_all_gather(input, output, counts);
    if (output.numel() == 0) return {};
    const auto type = type_of(input.dtype());
    return start(
        "all_gather", {input, output}, [&](const NcclLibrary& nccl, auto group, auto stream) {
          if (is_even(counts)) {
            check(nccl.all_gather(input.raw(), output.raw(), count_of(input), type, group, stream),
                  "ncclAllGather");
            return;
          }
          std::int64_t begin = 0;
          for (int r = 0; r < size(); ++r) {
            const std::int64_t rows = counts[static_cast<std::size_t>(r)];
            const auto numbers = static_cast<std::size_t>(rows * row_numbers(output));
            if (numbers > 0)
              check(nccl.broadcast(input.raw(), row_at(output, begin), numbers, type, r, group,
                                   stream),
                    "ncclBroadcast");
            begin += rows;
          }
        });
  }

  Handle do_all_to_all(const Tensor& input, const RankCounts& send_counts, const Tensor& output,
                       const RankCounts& receive_counts) override {
    if (on_host(input)) return host_->start_all_to_all(input, send_counts, output, receive_counts);
    const auto type = type_of(input.dtype());
    const std::int64_t numbers = row_numbers(input);
    return start(
        "all_to_all", {input, output}, [&](const NcclLibrary& nccl, auto group, auto stream) {
          std::int64_t from = 0, to = 0;
          for (int r = 0; r < size(); ++r) {
            const std::int64_t sent = send_counts[static_cast<std::size_t>(r)];
            const std::int64_t received = receive_counts[static_cast<std::size_t>(r)];
            if (sent * numbers > 0)
              check(nccl.send(row_at(input, from), static_cast<std::size_t>(sent * numbers), type,
                              r, group, stream),
                    "ncclSend");
            if (received * numbers > 0)
              check(nccl.receive(row_at(output, to), static_cast<std::size_t>(received * numbers),
                                 type, r, group, stream),
                    "ncclRecv");
            from += sent;
            to += received;
          }
        });
  }

  Handle do_broadcast(const Tensor& tensor, int root) override {
    if (on_host(tensor)) return host_->start_broadcast(tensor, root);
    if (tensor.numel() == 0) return {};
    return start("broadcast", {tensor}, [&](const NcclLibrary& nccl, auto group, auto stream) {
      check(nccl.broadcast(tensor.raw(), tensor.raw(), count_of(tensor), type_of(tensor.dtype()),
                           root, group, stream),
            "ncclBroadcast");
    });
  }

  std::shared_ptr<Channel> channel(int from, int to, const char* name) const {
    const auto found = channels_.find({from, to});
    if (found == channels_.end() || !found->second)
      fail<ConfigError>(fmt::format(
          "{}: tensors on cuda travel between neighbours of a group that was made ready with "
          "prepare_neighbours(), got {} to {} of {}",
          name, from, to, size()));
    return found->second;
  }

  std::shared_ptr<Pending> pending_on(const Channel& channel, const char* name,
                                      const Tensor& tensor) {
    auto operation = std::make_shared<Pending>(
        *job_, channel.connection(), fmt::format("{}: rank {} of {}", name, rank(), size()),
        std::vector<Tensor>{tensor});
    job_->pending.push_back(operation);
    return operation;
  }

  Handle do_send(const Tensor& tensor, int destination, int tag) override {
    if (on_host(tensor)) return host_->start_send(tensor, destination, tag);
    if (tensor.numel() == 0) return {};
    const auto there = channel(rank(), destination, "send");
    const auto operation = pending_on(*there, "send", tensor);
    there->send(tensor, tag, operation);
    return Handle(operation);
  }

  Handle do_receive(const Tensor& tensor, int source, int tag) override {
    if (on_host(tensor)) return host_->start_receive(tensor, source, tag);
    if (tensor.numel() == 0) return {};
    const auto there = channel(source, rank(), "receive");
    const auto operation = pending_on(*there, "receive", tensor);
    there->receive(tensor, tag, *operation);
    return Handle(operation);
  }

  Handle do_barrier() override { return host_->start_barrier(); }

  std::shared_ptr<Job> job_;
  std::shared_ptr<Communicator> host_;
  Device device_;
  std::shared_ptr<Connection> connection_;
  std::map<std::pair<int, int>, std::shared_ptr<Channel>> channels_;  // (from, to)
};

}  // namespace

bool has_nccl() { return true; }

std::shared_ptr<Communicator> make_nccl_group(const std::shared_ptr<Communicator>& host,
                                              Device device) {
  if (device.type != DeviceType::cuda)
    fail<ConfigError>(fmt::format("ranks: NCCL needs device cuda, got {}", to_string(device)));
  nccl_library();
  static std::weak_ptr<Job> running;
  std::shared_ptr<Job> job = running.lock();
  if (!job) running = job = std::make_shared<Job>(host);
  return std::make_shared<NcclGroup>(std::move(job), host, device);
}

}  // namespace lectern
