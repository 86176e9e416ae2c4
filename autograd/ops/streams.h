// Residual streams with gradient: expand, read, write, merge. Definitions: core/ops/stream_read.h,
// stream_write.h, stream_stack.h.
//
//   Streams x = expand_streams(embedding, n);
//   for each sub-layer:  StreamRead read = stream_read(x, parameters, args);
//                        x = stream_write(x, read, layer(read.input));
//   Variable out = mean_of_streams(x);          // or merge_streams() with a learned head
//
// A Streams is consumed by exactly one read or merge.
#pragma once

#include "autograd/variable.h"
#include "core/ops/stream_read.h"

#include <memory>
#include <utility>
#include <vector>

namespace lectern {

/// Streams of some consecutive sub-layers that are not kept for backward but rebuilt there: the
/// segment keeps its first streams, and of each sub-layer the output and the small mappings, and
/// runs the writes again, without the sub-layers (mHC, section 4.3.2, eq. 20).
class StreamSegment {
 public:
  explicit StreamSegment(Tensor first) : first_(std::move(first)) {}

  void append(Tensor mix, Tensor post, Tensor y) {
    writes_.push_back({std::move(mix), std::move(post), std::move(y)});
  }
  std::size_t size() const { return writes_.size(); }
  /// Streams before the segment's `index`-th sub-layer. Called with falling indices: what later
  /// sub-layers needed is dropped.
  Tensor streams(std::size_t index);

 private:
  struct Write {
    Tensor mix, post, y;
  };
  Tensor first_;
  std::vector<Write> writes_;
  std::vector<Tensor> rebuilt_;  // rebuilt_[i]: streams before sub-layer i
};

/// n residual streams [..., n, C]; or, in a plain stack, the one residual [..., C].
struct Streams {
  Variable graph;  ///< outside a segment its value is `value`; inside one it has none
  Tensor value;
  std::shared_ptr<StreamSegment> segment;  ///< null: keep every value

  Streams() = default;
  explicit Streams(const Variable& variable) : graph(variable), value(variable.value()) {}
  Streams(Variable graph, Tensor value, std::shared_ptr<StreamSegment> segment)
      : graph(std::move(graph)), value(std::move(value)), segment(std::move(segment)) {}
  /// The same streams as the first of a new segment.
  Streams begin_segment() const { return {graph, value, std::make_shared<StreamSegment>(value)}; }
};

struct StreamVariables {
  Variable fn, base, scale;
};

struct StreamRead {
  Variable input;   ///< [..., C], for the sub-layer
  Variable post;    ///< [..., n]
  Variable mixed;   ///< only for stream_write: carries the gradient of the residual path
  Tensor pre, mix;  ///< values, [..., n] and [..., n, n]
};

/// x [..., C] -> [..., n, C]
Streams expand_streams(const Variable& x, std::int64_t streams);
/// Saves x, unless it belongs to a segment.
StreamRead stream_read(const Streams& x, const StreamVariables& parameters,
                       const StreamReadArgs& args);
/// y [..., C]: the sub-layer's output. Saves y and post.
Streams stream_write(const Streams& x, const StreamRead& read, const Variable& y);
/// Learned head: mapping `head`.
Variable merge_streams(const Streams& x, const StreamVariables& parameters);
Variable mean_of_streams(const Streams& x);

}  // namespace lectern
