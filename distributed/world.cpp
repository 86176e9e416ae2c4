#include "distributed/world.h"

#include "distributed/groups.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <numeric>
#include <string_view>
#include <thread>

namespace lectern {

int launched_ranks() {
  // SLURM_STEP_NUM_TASKS counts only where srun starts MPI itself: a batch script's own shell, and
  // what it starts, have the variable too.
  const bool srun = std::getenv("PMIX_RANK") != nullptr || std::getenv("PMI_RANK") != nullptr;
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    const char* text = std::getenv(name);
    if (text == nullptr || (std::string_view(name).starts_with("SLURM") && !srun)) continue;
    int ranks = 0;
    const std::string_view digits(text);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), ranks);
    if (error == std::errc() && end == digits.data() + digits.size() && ranks >= 1) return ranks;
  }
  return 1;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "?";
  return name.data();
}

std::vector<std::string> all_gather_text(Communicator& ranks, const std::string& text) {
  const auto count = static_cast<std::size_t>(ranks.size());
  const Tensor own_length =
      Tensor::from(std::vector<std::int64_t>{static_cast<std::int64_t>(text.size())}, {1});
  const Tensor lengths = Tensor::empty({ranks.size()}, DType::i64);
  ranks.all_gather(own_length, lengths);
  const std::int64_t* each = lengths.data<std::int64_t>();
  const RankCounts counts(each, each + count);
  const Tensor own = Tensor::empty({own_length.data<std::int64_t>()[0]}, DType::u8);
  if (!text.empty()) std::memcpy(own.raw(), text.data(), text.size());
  const Tensor all =
      Tensor::empty({std::accumulate(counts.begin(), counts.end(), std::int64_t{0})}, DType::u8);
  ranks.all_gather(own, all, counts);
  std::vector<std::string> out;
  const char* at = static_cast<const char*>(all.raw());
  for (const std::int64_t length : counts) {
    out.emplace_back(length > 0 ? std::string(at, static_cast<std::size_t>(length)) : "");
    at += length;
  }
  return out;
}

std::vector<std::string> together(Communicator& ranks, const std::function<std::string()>& work) {
  std::string text;
  try {
    text = "+" + work();
  } catch (const std::exception& error) {
    text = std::string("-") + error.what();
  }
  std::vector<std::string> all = all_gather_text(ranks, text);
  for (std::string& each : all) {
    if (each.starts_with('-')) throw IoError(each.substr(1));
    each.erase(0, 1);
  }
  return all;
}

std::vector<double> reduced(Communicator& ranks, const std::vector<double>& values,
                            Reduction reduction) {
  if (ranks.size() == 1 || values.empty()) return values;
  const Tensor tensor = Tensor::from(values, {static_cast<std::int64_t>(values.size())});
  ranks.all_reduce(tensor, reduction);
  return {tensor.data<double>(), tensor.data<double>() + values.size()};
}

double reduced(Communicator& ranks, double value, Reduction reduction) {
  return reduced(ranks, std::vector<double>{value}, reduction)[0];
}

int threads_for_rank(Communicator& world) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (::sched_getaffinity(0, sizeof mask, &mask) != 0) return 1;
  std::string text = host_name() + "\n";
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) text += CPU_ISSET(cpu, &mask) ? '1' : '0';
  const std::string mine = text.substr(0, text.find('\n') + 1);
  std::array<double, CPU_SETSIZE> sharers{};
  for (const std::string& other : all_gather_text(world, text)) {
    if (!other.starts_with(mine)) continue;
    for (std::size_t cpu = 0; cpu < sharers.size(); ++cpu)
      sharers[cpu] += other[mine.size() + cpu] == '1' ? 1 : 0;
  }
  double share = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &mask)) share += 1 / sharers[static_cast<std::size_t>(cpu)];
  return std::max(1, static_cast<int>(share + 1e-6));
}

std::string rank_label(const Communicator& world) {
  return fmt::format("rank {} of {} on {}", world.rank(), world.size(), host_name());
}

void end_job(Communicator& world, const std::string& where, const std::string& reason) {
  std::string line = fmt::format("lectern: {}, {}: {}", rank_label(world), where, reason);
  std::replace(line.begin(), line.end(), '\n', ' ');
  if (world.rank() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(500));
  std::fprintf(stderr, "%s\n", line.c_str());
  world.abort(1);
  std::_Exit(1);  // gcc forgets that a virtual function does not return
}

World::World() : ranks_(launched_ranks() > 1 ? make_mpi_group() : make_single_group()) {}

}  // namespace lectern
