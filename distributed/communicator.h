// Communicator: a group of ranks (one process a device) that exchange tensors.
//
// Rules for every operation:
// * All ranks of the group call the same collectives in the same order. Point-to-point messages
//   between two ranks match by tag, and among equal tags in the order in which they were started.
// * Tensors are contiguous, on the group's device (host memory for the single and MPI groups; on
// the
//   GPU, or all of one operation in host memory, for NCCL groups), and agree in dtype across ranks.
//   A "row" is what one index of dimension 0 holds; counts are in rows and may be 0. Arguments that
//   this rank can check are checked before anything is sent and throw ShapeError, DTypeError or
//   DeviceError "<operation>: <rule>, got <found>".
// * Reductions are added in the order of ranks, ((x0 + x1) + x2) + ..., element by element,
// whatever
//   the size of the message and whoever arrives first: the same ranks give the same bits. bf16 is
//   added in f32 and rounded once; f32, f64, i32 and i64 in their own type. u8 is moved, not
//   reduced.
// * start_X() returns at once and X() is start_X().wait(). Until the handle is done the tensors
// must not
//   be read or changed; the handle (and the group) keep their memory alive. One thread of the
//   process makes all calls to all of its groups; work goes on while it is inside any of them, so
//   long computations call progress() now and then.
#pragma once

#include "core/tensor.h"

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

enum class Reduction : std::uint8_t { sum, max, min };

/// Rows that each rank sends or receives, in the order of ranks.
using RankCounts = std::vector<std::int64_t>;

/// A started operation, as an implementation sees it.
class Operation {
 public:
  virtual ~Operation() = default;
  /// Moves the operation on without blocking; true when it is done.
  virtual bool test() = 0;
  /// Blocks until it is done. Calling it again does nothing.
  virtual void wait() = 0;
};

/// A started operation, as its caller sees it. Dropping it does not cancel: the group finishes the
/// operation in its later calls, at the latest when the group goes.
class [[nodiscard]] Handle {
 public:
  /// Nothing to wait for.
  Handle() = default;
  explicit Handle(std::shared_ptr<Operation> operation) : operation_(std::move(operation)) {}

  bool test() { return !operation_ || operation_->test(); }
  void wait() {
    if (operation_) operation_->wait();
    operation_.reset();
  }

 private:
  std::shared_ptr<Operation> operation_;
};

enum class Exchange : std::uint8_t {
  all_reduce,
  reduce_scatter,
  all_gather,
  all_to_all,
  broadcast,
  send,
  receive,
  barrier
};
inline constexpr int kExchanges = 8;

/// What this rank asked of a group since the group was made.
struct Traffic {
  std::int64_t operations = 0;
  std::int64_t bytes_sent = 0;  ///< payload to other ranks; parts kept on this rank do not count
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  /// "single", "mpi" or "nccl", for messages.
  virtual std::string name() const = 0;

  /// tensor := reduction over ranks of their tensors, on every rank. Same shape everywhere.
  Handle start_all_reduce(const Tensor& tensor, Reduction reduction = Reduction::sum);
  void all_reduce(const Tensor& tensor, Reduction reduction = Reduction::sum) {
    start_all_reduce(tensor, reduction).wait();
  }

  /// `input` [sum of counts, ..] is cut into parts of counts[r] rows; `output` [counts[rank], ..]
  /// := reduction over ranks of their part number `rank`. Without counts the parts are equal and
  /// dimension 0 must divide by size(). `output` may be this rank's own part of `input`; `input` is
  /// otherwise left as it is.
  Handle start_reduce_scatter(const Tensor& input, const Tensor& output,
                              const RankCounts& counts = {}, Reduction reduction = Reduction::sum);
  void reduce_scatter(const Tensor& input, const Tensor& output, const RankCounts& counts = {},
                      Reduction reduction = Reduction::sum) {
    start_reduce_scatter(input, output, counts, reduction).wait();
  }

  /// `output` [sum of counts, ..] := the ranks' `input` [counts[rank], ..] one after the other.
  /// Without counts all inputs have the same rows. `input` may be its own part of `output`. A group
  /// knows no counts by itself: exchange them first where they vary.
  Handle start_all_gather(const Tensor& input, const Tensor& output, const RankCounts& counts = {});
  void all_gather(const Tensor& input, const Tensor& output, const RankCounts& counts = {}) {
    start_all_gather(input, output, counts).wait();
  }

  /// Rows of `input` [sum of send_counts, ..] go to the ranks in turn, send_counts[r] of them to
  /// rank r; `output` [sum of receive_counts, ..] := what came from rank 0, then rank 1, ...
  /// receive_counts[r] must be what rank r sends here. input and output must not overlap.
  Handle start_all_to_all(const Tensor& input, const RankCounts& send_counts, const Tensor& output,
                          const RankCounts& receive_counts);
  void all_to_all(const Tensor& input, const RankCounts& send_counts, const Tensor& output,
                  const RankCounts& receive_counts) {
    start_all_to_all(input, send_counts, output, receive_counts).wait();
  }

  /// tensor := that of rank `root`. Same shape everywhere.
  Handle start_broadcast(const Tensor& tensor, int root);
  void broadcast(const Tensor& tensor, int root) { start_broadcast(tensor, root).wait(); }

  /// To and from one other rank of the group; shapes agree in number of elements. Tags are 0 to
  /// 32767. A send may need its receive to have been started before it is done: start both before
  /// waiting for either where ranks send to one another.
  Handle start_send(const Tensor& tensor, int destination, int tag = 0);
  Handle start_receive(const Tensor& tensor, int source, int tag = 0);
  void send(const Tensor& tensor, int destination, int tag = 0) {
    start_send(tensor, destination, tag).wait();
  }
  void receive(const Tensor& tensor, int source, int tag = 0) {
    start_receive(tensor, source, tag).wait();
  }

  /// Done when all ranks have started it.
  Handle start_barrier();
  void barrier() { start_barrier().wait(); }

  /// A group for each value of `color` (>= 0), of the ranks that gave it, ordered by `key` and then
  /// by rank here. All ranks must call; a negative color gives nullptr. Groups may outlive this
  /// one.
  virtual std::shared_ptr<Communicator> split(int color, int key) = 0;

  /// Makes the connections that the first exchange would make. Collective.
  virtual void prepare() {}
  /// The same for send() and receive() between ranks that follow one another, the first and the
  /// last among them; on devices these work after it. Collective.
  virtual void prepare_neighbours() {}
  /// Whether exchanges of equal parts are faster than those of unequal ones.
  virtual bool prefers_equal_parts() const { return false; }

  /// Moves started operations on. Cheap when there are none.
  virtual void progress() = 0;

  /// Ends the processes of all ranks of the job, this one with `status`. Works from any state.
  [[noreturn]] virtual void abort(int status) noexcept = 0;

  const Traffic& traffic(Exchange exchange) const {
    return traffic_[static_cast<std::size_t>(exchange)];
  }

 protected:
  Communicator(int rank, int size) : rank_(rank), size_(size) {}

  // As the public functions, with arguments checked and counts given. Row counts of a tensor with
  // fewer than one dimension do not arise: such tensors are viewed as [1].
  virtual Handle do_all_reduce(const Tensor& tensor, Reduction reduction) = 0;
  virtual Handle do_reduce_scatter(const Tensor& input, const Tensor& output,
                                   const RankCounts& counts, Reduction reduction) = 0;
  virtual Handle do_all_gather(const Tensor& input, const Tensor& output,
                               const RankCounts& counts) = 0;
  virtual Handle do_all_to_all(const Tensor& input, const RankCounts& send_counts,
                               const Tensor& output, const RankCounts& receive_counts) = 0;
  virtual Handle do_broadcast(const Tensor& tensor, int root) = 0;
  virtual Handle do_send(const Tensor& tensor, int destination, int tag) = 0;
  virtual Handle do_receive(const Tensor& tensor, int source, int tag) = 0;
  virtual Handle do_barrier() = 0;
  virtual DeviceType device_type() const = 0;
  /// Tensors that the group moves.
  virtual bool accepts(DeviceType type) const { return type == device_type(); }

 private:
  void check_tensor(const Tensor& tensor, std::string_view operation, std::string_view name) const;
  RankCounts checked_counts(const RankCounts& counts, std::int64_t total,
                            std::string_view operation, std::string_view name) const;
  void check_peer(int peer, std::string_view operation, std::string_view name) const;
  void count(Exchange exchange, std::int64_t bytes);

  int rank_;
  int size_;
  std::array<Traffic, kExchanges> traffic_{};
};

}  // namespace lectern
