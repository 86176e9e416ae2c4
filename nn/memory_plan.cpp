#include "nn/memory_plan.h"

#include <fmt/core.h>

#include <algorithm>

namespace lectern {

void MemoryPlan::begin(const std::vector<std::int64_t>& size, bool may_probe) {
  std::vector<bool> has;
  for (const std::int64_t figure : size) has.push_back(figure > 0);
  now_ = &choices_[has];
  now_->largest.resize(size.size(), -1);
  cautious_ = false;
  for (std::size_t i = 0; i < size.size(); ++i) cautious_ |= size[i] > now_->largest[i];
  probing_ = may_probe && cautious_;
  size_ = size;
  next_ = 0;
  peak_ = 0;
  if (!probing_) return;
  now_->blocks.clear();
  probe_.reset_peak();
  open_ = &now_->before;
}

void MemoryPlan::next_stretch(double* peak) {
  const auto here = static_cast<double>(probe_.now().peak_bytes);
  if (open_ != nullptr) *open_ = here;
  peak_ = std::max(peak_, here);
  probe_.reset_peak();
  open_ = peak;
}

std::size_t MemoryPlan::begin_block() {
  const std::size_t block = next_++;
  if (!probing_) return block;
  next_stretch(nullptr);
  Block& b = now_->blocks.emplace_back();  // the others have moved, but none has a stretch open
  b.entry = static_cast<double>(probe_.now().current_bytes);
  open_ = &b.forward;
  return block;
}

void MemoryPlan::end_block(std::size_t block, std::size_t output_bytes) {
  if (!probing_) return;
  now_->blocks[block].outputs = static_cast<double>(output_bytes);
  next_stretch(&now_->blocks[block].after);
}

bool MemoryPlan::recomputes(std::size_t block) const {
  return cautious_ || block >= now_->kept.size() || !now_->kept[block];
}

void MemoryPlan::begin_again(std::size_t block) {
  if (!probing_) return;
  Block& b = now_->blocks[block];
  b.runs_again = true;
  next_stretch(&b.again);
  again_entry_ = static_cast<double>(probe_.now().current_bytes);
  probe_.finish();
  again_watch_ = {};
}

void MemoryPlan::end_again(std::size_t block) {
  if (!probing_) return;
  probe_.finish();
  Block& b = now_->blocks[block];
  b.seconds = again_watch_.seconds();
  const auto live = static_cast<double>(probe_.now().current_bytes);
  next_stretch(&b.backward);
  b.inside = b.again - again_entry_;
  b.held = std::max(0.0, live - again_entry_ - b.outputs);
}

bool MemoryPlan::end() {
  if (!probing_) {
    peak_ = static_cast<double>(probe_.now().peak_bytes);
    return false;
  }
  next_stretch(nullptr);
  probing_ = cautious_ = false;
  for (std::size_t i = 0; i < size_.size(); ++i)
    now_->largest[i] = std::max(now_->largest[i], size_[i]);
  choose();
  return true;
}

double MemoryPlan::predict(const Choice& choice) {
  double held = 0, peak = choice.before;
  for (std::size_t i = 0; i < choice.blocks.size(); ++i) {
    const Block& b = choice.blocks[i];
    const bool kept = choice.kept[i];
    peak = std::max(peak, held + (kept ? b.entry + b.inside : b.forward));
    peak = std::max(peak, held + (kept ? b.backward - b.outputs : std::max(b.again, b.backward)));
    if (kept) held += b.held;
    peak = std::max(peak, held + b.after);
  }
  return peak;
}

void MemoryPlan::choose() {
  const std::vector<Block>& blocks = now_->blocks;
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < blocks.size(); ++i)
    if (blocks[i].runs_again) order.push_back(i);
  const auto saved_a_byte = [&](std::size_t i) {
    return blocks[i].seconds / std::max(1.0, blocks[i].held);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t i, std::size_t j) { return saved_a_byte(i) > saved_a_byte(j); });
  now_->kept.assign(blocks.size(), false);
  for (const std::size_t i : order) {
    now_->kept[i] = true;
    if (predict(*now_) > budget_) now_->kept[i] = false;
  }
  now_->predicted = predict(*now_);
}

const MemoryPlan::Choice& MemoryPlan::choice() const {
  static const Choice none;
  return now_ == nullptr ? none : *now_;
}

std::size_t MemoryPlan::blocks() const {
  const std::vector<Block>& all = choice().blocks;
  return static_cast<std::size_t>(
      std::count_if(all.begin(), all.end(), [](const Block& b) { return b.runs_again; }));
}

std::size_t MemoryPlan::kept_blocks() const {
  const std::vector<bool>& kept = choice().kept;
  return static_cast<std::size_t>(std::count(kept.begin(), kept.end(), true));
}

std::string MemoryPlan::describe() const {
  constexpr double kGiB = 1 << 30;
  const Choice& plan = choice();
  std::string letters;
  for (std::size_t i = 0; i < plan.kept.size(); ++i)
    letters += plan.kept[i] ? 'k' : plan.blocks[i].runs_again ? 'r' : '-';
  return fmt::format(
      "memory: of {} blocks {} keep their activations and {} recompute ({}); {:.3f} GiB predicted, "
      "{:.3f} GiB allowed{}",
      blocks(), kept_blocks(), blocks() - kept_blocks(), letters, plan.predicted / kGiB,
      budget_ / kGiB, plan.predicted > budget_ ? ": more than that, even so" : "");
}

}  // namespace lectern
