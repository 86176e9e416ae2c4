// Tensors put aside: what they held when the object was made, while training goes on to change
// them.
//
// Making the object copies nothing. A background thread copies piece by piece; whoever is about to
// change the tensors takes part in what is left. The copies lie in memory of their own, outside the
// allocator's cache, which goes back to the system with the last of them.
#pragma once

#include "core/tensor.h"

#include <atomic>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace lectern {

class TensorCopies {
 public:
  struct Source {
    std::string name;
    Tensor tensor;
    bool changes = true;  ///< false: nobody changes it, so it is given out as it is
  };

  /// What is on a GPU or strided is copied at once, all else by work(). Throws MemoryError.
  explicit TensorCopies(const std::vector<Source>& sources);
  TensorCopies(const TensorCopies&) = delete;
  TensorCopies& operator=(const TensorCopies&) = delete;

  /// Copies until every piece has been taken. Any number of threads may do so side by side.
  void work();
  /// Returns when the last piece is there: others may be at it.
  void wait();
  /// work() on all of this thread's cores, and wait(). Then the sources may change.
  void finish();

  /// In the order of the sources; only after wait().
  const std::vector<std::pair<std::string, Tensor>>& tensors() const { return tensors_; }
  /// Memory of the copies.
  std::size_t bytes() const { return bytes_; }

 private:
  struct Piece {
    const char* from;
    char* to;
    std::size_t bytes;
  };

  std::vector<std::pair<std::string, Tensor>> tensors_;
  std::vector<Tensor> sources_;  // keeps what is being copied
  std::vector<Piece> pieces_;
  std::size_t bytes_ = 0;
  std::atomic<std::size_t> next_{0}, done_{0};
};

}  // namespace lectern
