#include "distributed/expert_parallel.h"

#include <algorithm>
#include <numeric>

namespace lectern {

RowExchange::Counts ExpertParallel::counts(const Counts& send) {
  const Tensor mine = Tensor::from(send, {ranks()});
  const Tensor theirs = Tensor::empty({ranks()}, DType::i64);
  const RankCounts one(static_cast<std::size_t>(ranks()), 1);
  group_->all_to_all(mine, one, theirs, one);
  const std::int64_t* at = theirs.data<std::int64_t>();
  Counts out(at, at + ranks());
  const std::int64_t kept = send[static_cast<std::size_t>(rank())];
  statistics_.rows_kept += kept;
  statistics_.rows_sent += std::accumulate(send.begin(), send.end(), std::int64_t{0}) - kept;
  statistics_.most_received =
      std::max(statistics_.most_received, std::accumulate(out.begin(), out.end(), std::int64_t{0}));
  ++statistics_.exchanges;
  return out;
}

void ExpertParallel::start(const Tensor& rows, const Counts& send, const Tensor& out,
                           const Counts& receive) {
  started_.push_back(group_->start_all_to_all(rows, send, out, receive));
}

void ExpertParallel::wait() {
  for (Handle& handle : started_) handle.wait();
  started_.clear();
}

}  // namespace lectern
