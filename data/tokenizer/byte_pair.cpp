#include "data/tokenizer/byte_pair.h"

#include "core/error.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace lectern {

MergeTable::MergeTable(std::size_t merges)
    : slots_(std::bit_ceil(std::max<std::size_t>(merges * 2, 16))), mask_(slots_.size() - 1) {}

void MergeTable::set(std::int32_t left, std::int32_t right, Merge merge) {
  const std::uint64_t key = key_of(left, right);
  std::size_t slot = slot_of(key);
  while (slots_[slot].key != key && slots_[slot].key != kEmpty) slot = (slot + 1) & mask_;
  if (slots_[slot].key == kEmpty && ++used_ * 2 > slots_.size()) {
    MergeTable larger(slots_.size());
    for (const Slot& old : slots_)
      if (old.key != kEmpty)
        larger.set(static_cast<std::int32_t>(old.key >> 32), static_cast<std::int32_t>(old.key),
                   old.merge);
    *this = std::move(larger);
    return set(left, right, merge);
  }
  slots_[slot] = {key, merge};
}

void merge_pairs(const MergeTable& table, std::vector<std::int32_t>& ids, MergeScratch& scratch) {
  if (ids.size() < 2) return;
  if (ids.size() > std::numeric_limits<std::int32_t>::max())
    fail<Error>(
        fmt::format("merge_pairs: a piece must be at most 2^31 - 1 ids, got {}", ids.size()));
  using Candidate = MergeScratch::Candidate;
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
  };
  auto& symbols = scratch.symbols;
  auto& queue = scratch.queue;
  const auto count = static_cast<std::int32_t>(ids.size());
  symbols.resize(ids.size());
  queue.clear();
  for (std::int32_t i = 0; i < count; ++i) {
    symbols[i] = {ids[i], i - 1, i + 1 < count ? i + 1 : -1};
    if (i + 1 == count) break;
    if (const auto* merge = table.find(ids[i], ids[i + 1]))
      queue.push_back({merge->rank, i, merge->id});
  }
  std::make_heap(queue.begin(), queue.end(), later);
  const auto offer = [&](std::int32_t at) {
    const auto* merge = table.find(symbols[at].id, symbols[symbols[at].next].id);
    if (merge == nullptr) return;
    queue.push_back({merge->rank, at, merge->id});
    std::push_heap(queue.begin(), queue.end(), later);
  };
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), later);
    const Candidate candidate = queue.back();
    queue.pop_back();
    auto& left = symbols[candidate.at];
    if (left.id < 0 || left.next < 0) continue;
    auto& right = symbols[left.next];
    // A candidate is out of date when the pair at its place has become another one.
    const auto* merge = table.find(left.id, right.id);
    if (merge == nullptr || merge->id != candidate.id) continue;
    left.id = candidate.id;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = candidate.at;
    if (left.previous >= 0) offer(left.previous);
    if (left.next >= 0) offer(candidate.at);
  }
  std::size_t kept = 0;
  for (const auto& symbol : symbols)
    if (symbol.id >= 0) ids[kept++] = symbol.id;
  ids.resize(kept);
}

}  // namespace lectern
