#include "distributed/communicator.h"

#include "core/error.h"

#include <numeric>

namespace lectern {
namespace {

std::int64_t sum_of(const RankCounts& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

/// Rows need a dimension 0.
Tensor with_rows(const Tensor& tensor) { return tensor.ndim() == 0 ? tensor.view({1}) : tensor; }

std::int64_t row_bytes(const Tensor& tensor) {
  std::int64_t bytes = static_cast<std::int64_t>(size_of(tensor.dtype()));
  for (int i = 1; i < tensor.ndim(); ++i) bytes *= tensor.dim(i);
  return bytes;
}

void check_same_rows(const Tensor& input, const Tensor& output, std::string_view operation) {
  check_device(output, input, operation, "output");
  bool same = input.dtype() == output.dtype() && input.ndim() == output.ndim();
  for (int i = 1; same && i < input.ndim(); ++i) same = input.dim(i) == output.dim(i);
  if (!same)
    fail<ShapeError>(
        fmt::format("{}: input and output must have equal dtype and rows of one shape, got {} and "
                    "{}",
                    operation, input.describe(), output.describe()));
}

void check_row_count(const Tensor& tensor, std::int64_t rows, std::string_view operation,
                     std::string_view name) {
  if (tensor.dim(0) != rows)
    fail<ShapeError>(
        fmt::format("{}: {} must have {} rows, got {}", operation, name, rows, tensor.describe()));
}

void check_reducible(const Tensor& tensor, std::string_view operation) {
  if (tensor.dtype() == DType::u8)
    fail<DTypeError>(
        fmt::format("{}: dtype must be f32, f64, bf16, i32 or i64, got u8", operation));
}

}  // namespace

void Communicator::check_tensor(const Tensor& tensor, std::string_view operation,
                                std::string_view name) const {
  if (!tensor.defined()) fail<ShapeError>(fmt::format("{}: {} must be defined", operation, name));
  check_contiguous(tensor, operation, name);
  if (!accepts(tensor.device().type))
    fail<DeviceError>(fmt::format("{}: {} must be on {} for a group of kind {}, got {}", operation,
                                  name, name_of(device_type()), this->name(), tensor.describe()));
}

RankCounts Communicator::checked_counts(const RankCounts& counts, std::int64_t total,
                                        std::string_view operation, std::string_view name) const {
  if (counts.empty()) {
    if (total % size_ != 0)
      fail<ShapeError>(fmt::format("{}: rows must divide by {} ranks when no {} are given, got {}",
                                   operation, size_, name, total));
    return RankCounts(static_cast<std::size_t>(size_), total / size_);
  }
  if (static_cast<int>(counts.size()) != size_)
    fail<ShapeError>(fmt::format("{}: {} must have one number for each of {} ranks, got {}",
                                 operation, name, size_, counts.size()));
  for (const std::int64_t count : counts)
    if (count < 0)
      fail<ShapeError>(fmt::format("{}: {} must be >= 0, got {}", operation, name, count));
  if (sum_of(counts) != total)
    fail<ShapeError>(fmt::format("{}: {} must sum to the {} rows of the tensor, got {}", operation,
                                 name, total, sum_of(counts)));
  return counts;
}

void Communicator::check_peer(int peer, std::string_view operation, std::string_view name) const {
  if (peer < 0 || peer >= size_ || peer == rank_)
    fail<ShapeError>(fmt::format("{}: {} must be another rank of 0 .. {}, got {} on rank {}",
                                 operation, name, size_ - 1, peer, rank_));
}

void Communicator::count(Exchange exchange, std::int64_t bytes) {
  Traffic& traffic = traffic_[static_cast<std::size_t>(exchange)];
  ++traffic.operations;
  traffic.bytes_sent += bytes;
}

Handle Communicator::start_all_reduce(const Tensor& tensor, Reduction reduction) {
  check_tensor(tensor, "all_reduce", "tensor");
  check_reducible(tensor, "all_reduce");
  const auto bytes = static_cast<std::int64_t>(tensor.bytes());
  count(Exchange::all_reduce, 2 * (bytes - bytes / size_));
  return do_all_reduce(tensor, reduction);
}

Handle Communicator::start_reduce_scatter(const Tensor& input, const Tensor& output,
                                          const RankCounts& counts, Reduction reduction) {
  check_tensor(input, "reduce_scatter", "input");
  check_tensor(output, "reduce_scatter", "output");
  check_reducible(input, "reduce_scatter");
  const Tensor from = with_rows(input), to = with_rows(output);
  check_same_rows(from, to, "reduce_scatter");
  const RankCounts parts = checked_counts(counts, from.dim(0), "reduce_scatter", "counts");
  const std::int64_t own = parts[static_cast<std::size_t>(rank_)];
  check_row_count(to, own, "reduce_scatter", "output");
  count(Exchange::reduce_scatter, (from.dim(0) - own) * row_bytes(from));
  return do_reduce_scatter(from, to, parts, reduction);
}

Handle Communicator::start_all_gather(const Tensor& input, const Tensor& output,
                                      const RankCounts& counts) {
  check_tensor(input, "all_gather", "input");
  check_tensor(output, "all_gather", "output");
  const Tensor from = with_rows(input), to = with_rows(output);
  check_same_rows(from, to, "all_gather");
  const RankCounts parts = checked_counts(counts, to.dim(0), "all_gather", "counts");
  check_row_count(from, parts[static_cast<std::size_t>(rank_)], "all_gather", "input");
  count(Exchange::all_gather, static_cast<std::int64_t>(from.bytes()) * (size_ - 1));
  return do_all_gather(from, to, parts);
}

Handle Communicator::start_all_to_all(const Tensor& input, const RankCounts& send_counts,
                                      const Tensor& output, const RankCounts& receive_counts) {
  check_tensor(input, "all_to_all", "input");
  check_tensor(output, "all_to_all", "output");
  const Tensor from = with_rows(input), to = with_rows(output);
  check_same_rows(from, to, "all_to_all");
  const RankCounts send = checked_counts(send_counts, from.dim(0), "all_to_all", "send_counts");
  const RankCounts receive =
      checked_counts(receive_counts, to.dim(0), "all_to_all", "receive_counts");
  const auto self = static_cast<std::size_t>(rank_);
  if (send[self] != receive[self])
    fail<ShapeError>(
        fmt::format("all_to_all: send_counts and receive_counts must agree for this rank itself, "
                    "got {} and {}",
                    send[self], receive[self]));
  count(Exchange::all_to_all, (from.dim(0) - send[self]) * row_bytes(from));
  return do_all_to_all(from, send, to, receive);
}

Handle Communicator::start_broadcast(const Tensor& tensor, int root) {
  check_tensor(tensor, "broadcast", "tensor");
  if (root < 0 || root >= size_)
    fail<ShapeError>(fmt::format("broadcast: root must be in 0 .. {}, got {}", size_ - 1, root));
  count(Exchange::broadcast,
        root == rank_ ? static_cast<std::int64_t>(tensor.bytes()) * (size_ - 1) : 0);
  return do_broadcast(tensor, root);
}

namespace {

void check_tag(int tag, std::string_view operation) {
  if (tag < 0 || tag > 32767)
    fail<ShapeError>(fmt::format("{}: tag must be in 0 .. 32767, got {}", operation, tag));
}

}  // namespace

Handle Communicator::start_send(const Tensor& tensor, int destination, int tag) {
  check_tensor(tensor, "send", "tensor");
  check_peer(destination, "send", "destination");
  check_tag(tag, "send");
  count(Exchange::send, static_cast<std::int64_t>(tensor.bytes()));
  return do_send(tensor, destination, tag);
}

Handle Communicator::start_receive(const Tensor& tensor, int source, int tag) {
  check_tensor(tensor, "receive", "tensor");
  check_peer(source, "receive", "source");
  check_tag(tag, "receive");
  count(Exchange::receive, 0);
  return do_receive(tensor, source, tag);
}

Handle Communicator::start_barrier() {
  count(Exchange::barrier, 0);
  return do_barrier();
}

}  // namespace lectern
