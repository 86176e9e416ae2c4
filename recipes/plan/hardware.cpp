#include "recipes/plan/hardware.h"

#include "core/error.h"
#include "core/stopwatch.h"
#include "core/tensor.h"
#include "recipes/config/find.h"
#include "recipes/config/nearest.h"
#include "recipes/config/toml_config.h"

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <vector>

namespace lectern {
namespace {

/// Names of cards without what people write in several ways: capitals, "-", "_" and spaces.
std::string bare(std::string_view name) {
  std::string out;
  for (const char c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) != 0)
      out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

[[noreturn]] void refuse_gpu(const std::filesystem::path& figures, const std::string& name,
                             const std::vector<std::string>& known) {
  std::string near;  // "A100" before two of them, "H100 SXM" after one
  for (const std::string& each : known)
    if (near.empty() && (bare(each).starts_with(bare(name)) || bare(name).starts_with(bare(each))))
      near = each;
  if (near.empty()) near = nearest_name(bare(name), known);
  fail<ConfigError>(fmt::format("plan: --gpu must be cpu or one of {} ({}), got {}{}",
                                fmt::join(known, ", "), find_recipe(figures).string(), name,
                                near.empty() ? "" : fmt::format("; did you mean {}?", near)));
}

}  // namespace

bool is_this_machine(std::string_view name) { return bare(name) == "cpu"; }

Hardware load_hardware(const std::filesystem::path& figures, const std::string& name,
                       const std::string& dtype) {
  constexpr double kGiga = 1e9, kTera = 1e12;
  const ConfigDocument document = ConfigDocument::load(figures);
  ConfigReader root = document.root();
  ConfigReader assumptions = root.table("assumptions");
  Hardware found;
  found.products = assumptions.number("products", kRequired, {.min = 0, .max = 1, .above = true});
  found.memory = assumptions.number("memory", kRequired, {.min = 0, .max = 1, .above = true});
  found.link = assumptions.number("link", kRequired, {.min = 0, .max = 1, .above = true});
  found.reserve_bytes = kGiga * assumptions.number("reserve_gigabytes", kRequired, not_negative());
  std::vector<std::string> known;
  for (ConfigReader& gpu : root.tables("gpu")) {
    known.push_back(gpu.string("name", kRequired));
    const double bf16 = gpu.number("bf16_teraflops", kRequired, positive());
    const double fp32 = gpu.number("fp32_teraflops", kRequired, positive());
    const double bytes = gpu.number("memory_gigabytes", kRequired, positive());
    const double memory = gpu.number("memory_rate", kRequired, positive());
    const double link = gpu.number("link_rate", kRequired, positive());
    const double network = gpu.number("network_rate", kRequired, positive());
    if (bare(known.back()) != bare(name)) continue;
    found.name = known.back();
    found.product_rate = kTera * (dtype == "bf16" ? bf16 : fp32);
    found.memory_bytes = kGiga * bytes;
    found.memory_rate = kGiga * memory;
    found.link_rate = kGiga * link;
    found.network_rate = kGiga * network;
  }
  root.finish();
  if (found.name.empty()) refuse_gpu(figures, name, known);
  return found;
}

Hardware this_machine() {
  // Larger than the caches, as buckets and activations are by the time they are sent.
  const Tensor from = Tensor::zeros({std::int64_t{16} << 20}), to = Tensor::empty_like(from);
  double fastest = 1e30;
  for (int repeat = 0; repeat < 4; ++repeat) {
    const Stopwatch watch;
    std::memcpy(to.raw(), from.raw(), from.bytes());
    fastest = std::min(fastest, watch.seconds());
  }
  const double copied = static_cast<double>(from.bytes()) / fastest;
  Hardware out;
  out.name = "cpu";
  out.memory_rate = 2 * copied;  // a copy reads and writes
  // What a rank sends is copied in by it and out by another, as what it receives is: two copies a
  // byte for each rank.
  out.link_rate = out.network_rate = copied / 2;
  out.products = out.memory = out.link = 1;
  out.products_from = "units timed on this machine";
  out.overlaps = false;
  out.direct = true;
  return out;
}

nlohmann::ordered_json hardware_json(const Hardware& hardware) {
  return {{"name", hardware.name},
          {"product_rate", hardware.product_rate},
          {"products_share", hardware.products},
          {"products_share_from", hardware.products_from},
          {"memory_bytes", hardware.memory_bytes},
          {"reserve_bytes", hardware.reserve_bytes},
          {"memory_rate", hardware.memory_rate},
          {"memory_share", hardware.memory},
          {"link_rate", hardware.link_rate},
          {"network_rate", hardware.network_rate},
          {"link_share", hardware.link},
          {"exchanges_overlap", hardware.overlaps}};
}

}  // namespace lectern
