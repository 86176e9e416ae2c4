// What a rank runs on, for predictions (recipes/plan/scale_plan.h): rates of a card and of the
// links between cards, from a figures file (recipes/configs/machines/gpus.toml), and where each
// number comes from.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace lectern {

struct Hardware {
  std::string name;
  // Peaks, operations or bytes a second. product_rate is that of the recipe's dtype.
  double product_rate = 0;
  double memory_bytes = 0;  ///< 0: not limited
  double memory_rate = 0;
  double link_rate = 0;     ///< a rank to the others of its node, one direction
  double network_rate = 0;  ///< a node to the others, one direction
  // Shares of the peaks that a step reaches.
  double products = 0.4, memory = 0.75, link = 0.7;
  double reserve_bytes = 0;  ///< of memory_bytes, for others
  /// Where `products` comes from: "assumption", or what was measured.
  std::string products_from = "assumption";
  /// Exchanges go on beside the computation (a GPU), or take the core from it (a CPU).
  bool overlaps = true;
  /// Every rank sends to every other (our MPI groups); false: round a ring (NCCL).
  bool direct = false;

  double seconds_of_products(double operations) const {
    return operations / (product_rate * products);
  }
  double seconds_of_memory(double bytes) const { return bytes / (memory_rate * memory); }
};

/// Whether --gpu means processes of this machine: "cpu".
bool is_this_machine(std::string_view name);

/// The GPU `name` of a figures file, for products in `dtype` ("bf16" or "fp32"); capitals and
/// dashes do not count ("A100_80G"). Throws IoError or ConfigError naming file and field; an
/// unknown name is answered with those that are known and the nearest.
Hardware load_hardware(const std::filesystem::path& figures, const std::string& name,
                       const std::string& dtype);

/// This process as a rank: its rate of copying memory measured now, its links taken to be copies
/// through shared memory. product_rate stays 0: units are timed, not counted.
Hardware this_machine();

nlohmann::ordered_json hardware_json(const Hardware& hardware);

}  // namespace lectern
