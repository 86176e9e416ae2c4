#include "nn/forward_context.h"

#include <iterator>
#include <utility>

namespace lectern {
namespace {

template <typename T>
void append(std::vector<T>& to, std::vector<T>&& from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

}  // namespace

void PassReport::add(PassReport inner) {
  append(stream_statistics, std::move(inner.stream_statistics));
  append(stream_mixes, std::move(inner.stream_mixes));
  append(balance_losses, std::move(inner.balance_losses));
  for (auto& [layer, counts] : inner.expert_counts) expert_counts[layer] = std::move(counts);
}

}  // namespace lectern
