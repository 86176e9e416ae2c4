// Byte pair encoding of one piece: while any two neighbours have a merge, the merge of the lowest
// rank (the leftmost of equals) is made.
#pragma once

#include <cstdint>
#include <vector>

namespace lectern {

/// Maps ordered pairs of ids to (rank, merged id): a flat hash table, since encoding spends its
/// time in these look-ups.
class MergeTable {
 public:
  struct Merge {
    std::int32_t rank;
    std::int32_t id;
  };
  explicit MergeTable(std::size_t merges = 0);
  /// Adds or replaces the merge of (left, right), ids >= 0.
  void set(std::int32_t left, std::int32_t right, Merge merge);
  const Merge* find(std::int32_t left, std::int32_t right) const {
    const std::uint64_t key = key_of(left, right);
    for (std::size_t slot = slot_of(key);; slot = (slot + 1) & mask_) {
      if (slots_[slot].key == key) return &slots_[slot].merge;
      if (slots_[slot].key == kEmpty) return nullptr;
    }
  }

 private:
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  struct Slot {
    std::uint64_t key = kEmpty;
    Merge merge{};
  };
  static std::uint64_t key_of(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
  }
  std::size_t slot_of(std::uint64_t key) const {
    return static_cast<std::size_t>((key * 0x9E3779B97F4A7C15u) >> 32) & mask_;
  }

  std::vector<Slot> slots_;
  std::size_t mask_;
  std::size_t used_ = 0;
};

/// Working memory of merge_pairs().
struct MergeScratch {
  struct Symbol {
    std::int32_t id;  // -1 once it is part of its left neighbour
    std::int32_t previous, next;
  };
  struct Candidate {
    std::int32_t rank, at, id;
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> queue;
};

/// Applies the merges of `table` to `ids` in place, in O(n log n). Throws Error over 2^31 - 1 ids.
void merge_pairs(const MergeTable& table, std::vector<std::int32_t>& ids, MergeScratch& scratch);

}  // namespace lectern
