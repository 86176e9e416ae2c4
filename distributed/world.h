// The job that this process belongs to: who started it, its ranks, its share of the machine.
#pragma once

#include "distributed/communicator.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace lectern {

/// Ranks that a launcher started together with this process, from what mpirun (Open MPI, MPICH) or
/// srun left in the environment; 1 when none did.
int launched_ranks();

/// Name of this machine.
std::string host_name();

/// Text of each rank, in the order of ranks, on every rank. Collective.
std::vector<std::string> all_gather_text(Communicator& ranks, const std::string& text);

/// Runs `work` on every rank and gives each rank what all of them returned. Where one threw, all
/// throw an IoError with the text of the first that did: nobody waits for a rank that has left.
/// Collective.
std::vector<std::string> together(Communicator& ranks, const std::function<std::string()>& work);

/// Sums over ranks, or the largest; on every rank. Collective.
std::vector<double> reduced(Communicator& ranks, const std::vector<double>& values,
                            Reduction reduction = Reduction::sum);
double reduced(Communicator& ranks, double value, Reduction reduction = Reduction::sum);

/// CPU threads for this rank: each processor that it may run on is shared among the ranks of this
/// host that may run on it too; at least 1. Collective.
int threads_for_rank(Communicator& world);

/// "rank 1 of 4 on node7"
std::string rank_label(const Communicator& world);

/// Ends the job of all ranks because of a fault on this one: says on stderr which rank, on which
/// host, where in the run, and why. A fault that all ranks meet is told by the first of them.
[[noreturn]] void end_job(Communicator& world, const std::string& where, const std::string& reason);

class World {
 public:
  /// Joins the job of launched_ranks() ranks; alone when there is 1. Throws ConfigError when there
  /// are more and the build has no MPI.
  World();

  const std::shared_ptr<Communicator>& ranks() const { return ranks_; }
  int rank() const { return ranks_->rank(); }
  int size() const { return ranks_->size(); }

 private:
  std::shared_ptr<Communicator> ranks_;
};

}  // namespace lectern
