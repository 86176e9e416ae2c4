// lectern info: what this build has and what this machine offers.
#include "core/cpu/gemm_bf16.h"
#include "core/parallel.h"
#include "cuda/register.h"
#include "distributed/groups.h"
#include "distributed/world.h"
#include "recipes/commands/command.h"
#include "recipes/machine/versions.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <fstream>
#include <memory>
#include <string>

namespace lectern::commands {
namespace {

/// First "<key> : value" of a /proc file, "" when there is none.
std::string proc_value(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const auto colon = line.find(':');
    if (colon == std::string::npos || !line.starts_with(key)) continue;
    const auto at = line.find_first_not_of(" \t", colon + 1);
    return at == std::string::npos ? "" : line.substr(at);
  }
  return "";
}

/// The instruction sets that decide how fast the CPU kernels are.
std::vector<std::string> cpu_features() {
  const std::string flags = " " + proc_value("/proc/cpuinfo", "flags") + " ";
  std::vector<std::string> out;
  for (const char* name : {"avx2", "fma", "avx512f", "avx512_bf16", "avx_vnni", "amx_bf16"})
    if (flags.find(fmt::format(" {} ", name)) != std::string::npos) out.emplace_back(name);
  return out;
}

}  // namespace

void add_info(Command app) {
  auto as_json = std::make_shared<bool>(false);
  Command command = app.add_subcommand("info", "devices, ranks, libraries, CPU features");
  command.add_flag("--json", *as_json, "print one JSON object");
  command.callback([as_json] {
    nlohmann::ordered_json info;
    info["lectern"] = kVersion;
    info["git_revision"] = git_revision();
    const CudaStatus cuda = cuda_status();
    info["devices"] = {"cpu"};
    for (const CudaDevice& device : cuda.devices)
      info["devices"].push_back(
          fmt::format("cuda:{} {} ({:.1f} GiB, compute capability {})", device.index, device.name,
                      static_cast<double>(device.bytes) / (1u << 30), device.compute_capability));
    info["ranks"] = launched_ranks();
    info["cpu"] = proc_value("/proc/cpuinfo", "model name");
    info["cpu_threads"] = thread_count();
    info["cpu_features"] = cpu_features();
    info["bf16_products"] = bf16_arithmetic() == "f32"
                                ? "through f32, at the speed of f32 (no AVX-512 BF16 in this build)"
                                : bf16_arithmetic();
    info["memory"] = proc_value("/proc/meminfo", "MemTotal");
    info["libraries"] = library_versions();
    info["cuda"] = cuda.problem.empty() ? cuda.versions
                   : cuda.in_build      ? fmt::format("{}; {}", cuda.problem, cuda.versions)
                                        : cuda.problem;
    info["mpi"] = has_mpi() ? "in this build" : "not in this build";
    info["nccl"] = has_nccl() ? "in this build" : "not in this build";
    if (*as_json) {
      fmt::print("{}\n", info.dump());
      return;
    }
    for (const auto& [key, value] : info.items())
      fmt::print("{:<14} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
  });
}

}  // namespace lectern::commands
