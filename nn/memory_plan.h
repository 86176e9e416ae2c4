// Activation recomputation for a budget of memory: which blocks keep what backward needs, and which
// keep their input and compute the rest again.
//
// A probe is one forward and backward pass in which every block recomputes. It measures, of block i
// in the order of the forward pass,
//   entry_i    bytes live when the block begins     forward_i  peak while it runs without a graph
//   after_i    peak from its end until the next block begins; of the last, until backward comes to
//              the first block that runs again: the head and the loss
//   again_i    peak of running again in backward, inside_i the same over what was live before
//   seconds_i  of that              outputs_i  bytes that it gives (then a second time)
//   held_i     bytes of its graph when it has run again, its outputs not counted
//   backward_i peak from there until the next block runs again
// A block of the set S that keeps its graph adds held_i from its forward pass until its backward:
//   H_i     = sum of held_j over j < i in S
//   peak(S) = max over i of   H_i + (i in S ? entry_i + inside_i : forward_i),   H_{i+1} + after_i,
//                             H_i + (i in S ? backward_i - outputs_i : max(again_i, backward_i)),
//             and of the peak before the first block.
// S is chosen greedily: most seconds saved a byte first, as long as peak(S) is within the budget.
// A step's result does not depend on S, to the bit. A pass larger than all that were probed is
// probed anew; a smaller one needs less. Until there was a probe everything recomputes. Passes that
// lack a part (no local views) go through other blocks and have a choice of their own.
// Source: the gradient checkpointing of Chen et al., arXiv 1604.06174; the choice by measurement is
// our own.
#pragma once

#include "core/allocator.h"
#include "core/stopwatch.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace lectern {

/// Of the device that trains.
struct MemoryProbe {
  std::function<MemoryStatistics()> now;
  std::function<void()> reset_peak;
  std::function<void()> finish = [] {};  ///< returns when the device has done what it was asked
};

class MemoryPlan {
 public:
  /// budget: bytes of live tensors, parameters and optimizer state included.
  MemoryPlan(double budget, MemoryProbe probe) : budget_(budget), probe_(std::move(probe)) {}

  /// Around one forward and backward pass. `size` says how large it is (positions, pixels), 0 for a
  /// part that it lacks. A pass that is larger in any figure than all that were probed and lack the
  /// same recomputes everything; it is a probe if it may be (everything that lives for the whole
  /// run must be there by then).
  void begin(const std::vector<std::int64_t>& size, bool may_probe);
  /// True when the plan is a new one.
  bool end();

  /// Around each block's forward pass, in order: its number, and the bytes of what it gave.
  std::size_t begin_block();
  void end_block(std::size_t block, std::size_t output_bytes);
  bool recomputes(std::size_t block) const;
  /// Around the block's second run, in backward.
  void begin_again(std::size_t block);
  void end_again(std::size_t block);

  double budget() const { return budget_; }
  /// Of the largest pass of this kind that was probed, with the blocks that were chosen; here and
  /// below of the kind of the last pass. 0 without a probe.
  double predicted_peak() const { return choice().predicted; }
  /// What the budget chooses among: blocks in which backward has something to do.
  std::size_t blocks() const;
  std::size_t kept_blocks() const;
  /// Peak of the last pass. The device's own figure is of a part of it only: a probe resets it.
  double peak_of_pass() const { return peak_; }
  /// One line: what is kept, what recomputes, what is predicted, and whether the budget is enough.
  std::string describe() const;

 private:
  struct Block {
    double entry = 0, forward = 0, after = 0, outputs = 0;
    double again = 0, inside = 0, seconds = 0, held = 0, backward = 0;
    bool runs_again = false;
  };
  /// For passes of one kind.
  struct Choice {
    std::vector<std::int64_t> largest;
    double before = 0;  ///< peak up to the first block
    std::vector<Block> blocks;
    std::vector<bool> kept;
    double predicted = 0;
  };

  const Choice& choice() const;
  static double predict(const Choice& choice);
  void choose();
  /// Closes the stretch of the pass that is being measured, and opens the next.
  void next_stretch(double* peak);

  double budget_;
  MemoryProbe probe_;
  std::map<std::vector<bool>, Choice> choices_;  ///< by what a pass has
  Choice* now_ = nullptr;
  double peak_ = 0;
  // Of the pass under way.
  std::vector<std::int64_t> size_;
  bool probing_ = false, cautious_ = true;
  std::size_t next_ = 0;
  double* open_ = nullptr;  ///< where the peak of the open stretch goes
  double again_entry_ = 0;
  Stopwatch again_watch_;
};

}  // namespace lectern
