#include "recipes/plan/scale_plan.h"

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace lectern {
namespace {

constexpr double kGiga = 1e9;

std::string mesh_name(const ScalePlan& plan) {
  return fmt::format("pp {} x dp {}, ep {}", plan.mesh.pp, plan.mesh.dp, plan.mesh.ep);
}

/// "12.3 GB", "4.56 MB"
std::string memory_text(double bytes) {
  if (bytes == 0) return "0";
  if (bytes >= kGiga) return fmt::format("{:.2f} GB", bytes / kGiga);
  if (bytes >= 1e6) return fmt::format("{:.2f} MB", bytes / 1e6);
  return fmt::format("{:.0f} B", bytes);
}

/// "1.2 M", "70.1 B"
std::string count_text(double count) {
  if (count >= 1e9) return fmt::format("{:.1f} B", count / 1e9);
  if (count >= 1e6) return fmt::format("{:.2f} M", count / 1e6);
  return fmt::format("{:.0f}", count);
}

struct NamedLoad {
  const char* name;
  const char* key;
  const LinkLoad* load;
};

std::vector<NamedLoad> loads_of(const ScalePlan& plan) {
  return {{plan.zero ? "gradients, reduce-scatter" : "gradients, all-reduce", "gradients",
           &plan.gradient_load},
          {"parameters, all-gather", "parameters", &plan.parameter_load},
          {"experts' rows, all-to-all", "experts", &plan.expert_load},
          {"activations and their gradients", "activations", &plan.activation_load}};
}

nlohmann::ordered_json memory_json(const PredictedMemory& memory) {
  return {{"weights", memory.weights},     {"bf16_copies", memory.copies},
          {"gradients", memory.gradients}, {"buckets", memory.buckets},
          {"moments", memory.moments},     {"activations_estimate", memory.activations},
          {"workspace", memory.workspace}, {"total", memory.total()}};
}

nlohmann::ordered_json json_of(const ScalePlan& plan) {
  nlohmann::ordered_json out = {{"pp", plan.mesh.pp},
                                {"dp", plan.mesh.dp},
                                {"ep", plan.mesh.ep},
                                {"chunks", plan.pipeline.shape.chunks},
                                {"zero", plan.zero},
                                {"micro_batch", plan.micro_batch},
                                {"micro_batches", plan.pipeline.micro_batches},
                                {"split", plan.pipeline.ends},
                                {"seconds", plan.seconds},
                                {"pipeline_seconds", plan.pipeline.seconds},
                                {"bubble", plan.pipeline.bubble},
                                {"expert_exchange_seconds", plan.experts},
                                {"gradient_seconds", plan.gradients},
                                {"gradient_seconds_exposed", plan.gradients_exposed},
                                {"update_seconds", plan.update},
                                {"parameter_seconds", plan.parameters},
                                {"utilisation", plan.utilisation},
                                {"pages_a_day", plan.pages_a_day},
                                {"tokens_a_day", plan.tokens_a_day},
                                {"fits", plan.fits},
                                {"memory", memory_json(plan.memory)}};
  for (const NamedLoad& each : loads_of(plan))
    out["bytes"][each.key] = {{"rank_sends", each.load->sent},
                              {"rank_sends_in_node", each.load->in_node},
                              {"node_sends", each.load->leaving},
                              {"all_ranks", each.load->total}};
  return out;
}

std::string fit_text(const ScaleInput& input, const ScalePlan& plan) {
  const Hardware& hardware = input.hardware;
  if (hardware.memory_bytes == 0) return "";
  const double limit = hardware.memory_bytes - hardware.reserve_bytes;
  if (plan.fits)
    return fmt::format("It fits: {} of {} ({} less {} kept free).\n",
                       memory_text(plan.memory.total()), memory_text(limit),
                       memory_text(hardware.memory_bytes), memory_text(hardware.reserve_bytes));
  return fmt::format(
      "**It does not fit** the memory of {}: a rank needs {} of {} ({} less {} kept free).\n",
      hardware.name, memory_text(plan.memory.total()), memory_text(limit),
      memory_text(hardware.memory_bytes), memory_text(hardware.reserve_bytes));
}

std::string memory_table(const PredictedMemory& memory) {
  std::string out = "\n| memory of a rank | |\n|---|---|\n";
  const auto row = [&](const char* name, double bytes) {
    out += fmt::format("| {} | {} |\n", name, memory_text(bytes));
  };
  row("weights, f32", memory.weights);
  row("bf16 copies", memory.copies);
  row("gradients, f32", memory.gradients);
  row("buckets", memory.buckets);
  row("moments of AdamW", memory.moments);
  row("activations (estimate)", memory.activations);
  row("workspace (estimate)", memory.workspace);
  row("all", memory.total());
  return out;
}

std::string plan_text(const ScaleInput& input, const ScalePlan& plan) {
  std::string out =
      fmt::format("Mesh {}: {:.3f} s a step, {} pages and {} tokens a day", mesh_name(plan),
                  plan.seconds, count_text(plan.pages_a_day), count_text(plan.tokens_a_day));
  if (plan.utilisation > 0)
    out += fmt::format("; {:.1f} % of the peak rate on all ranks", 100 * plan.utilisation);
  out += ".\n" + fit_text(input, plan);
  out +=
      fmt::format("Micro-batches: {} of {} row(s) for each of {} pipelines; mesh.split = [{}].\n",
                  plan.pipeline.micro_batches, plan.micro_batch, plan.mesh.dp,
                  fmt::join(plan.pipeline.ends, ", "));
  out += "\n| a step | seconds |\n|---|---|\n";
  out += fmt::format("| forward and backward, waiting {:.0f} % | {:.3f} |\n",
                     100 * plan.pipeline.bubble, plan.pipeline.seconds);
  out += fmt::format("| of it exchanges of experts' rows | {:.3f} |\n", plan.experts);
  out += fmt::format("| gradients ({:.3f} in all), not hidden | {:.3f} |\n", plan.gradients,
                     plan.gradients_exposed);
  out += fmt::format("| norm and AdamW | {:.3f} |\n", plan.update);
  out += fmt::format("| parameters | {:.3f} |\n", plan.parameters);
  out +=
      "\n| sent in a step | by a rank | inside its node | by a node to others | by all ranks "
      "|\n|---|---|---|---|---|\n";
  for (const NamedLoad& each : loads_of(plan))
    out += fmt::format("| {} | {} | {} | {} | {} |\n", each.name, memory_text(each.load->sent),
                       memory_text(each.load->in_node), memory_text(each.load->leaving),
                       memory_text(each.load->total));
  return out + memory_table(plan.memory);
}

}  // namespace

std::vector<std::string> assumptions_of(const ScaleInput& input, const Recipe& recipe) {
  const Hardware& hardware = input.hardware;
  std::vector<std::string> out;
  out.push_back(fmt::format(
      "a page: {}, {} tokens of text, {:.0f} rows of the decoder; {:.0f} page(s) in a row of the "
      "batch",
      input.page.has_image ? fmt::format("{} tile(s)", input.page.crops) : "no picture",
      input.page.text_tokens, input.page_tokens, input.pages));
  if (hardware.product_rate > 0) {
    out.push_back(fmt::format(
        "products and all between them reach {:.1f} % ({}) of {:.1f} TFLOP/s, the data sheet's "
        "rate in {}",
        100 * hardware.products, hardware.products_from, hardware.product_rate / 1e12,
        recipe.dtype));
    out.push_back(fmt::format("AdamW and copies reach {:.0f} % (assumption) of {:.0f} GB/s",
                              100 * hardware.memory, hardware.memory_rate / kGiga));
    out.push_back(fmt::format(
        "exchanges reach {:.0f} % (assumption) of {:.0f} GB/s from a GPU to others of its node and "
        "of {:.0f} GB/s from a node to others",
        100 * hardware.link, hardware.link_rate / kGiga, hardware.network_rate / kGiga));
  } else {
    out.push_back(fmt::format(
        "units, update and loader timed on this machine with {:.0f} thread(s) a rank; ranks share "
        "{:.0f} core(s)",
        input.threads, input.cores));
    out.push_back(fmt::format(
        "exchanges are copies through memory at {:.1f} GB/s a rank (copying measured here), and "
        "nothing hides them",
        hardware.link_rate / kGiga));
  }
  out.push_back(hardware.direct ? "every rank sends to every other rank of its group"
                                : "reduce-scatter and all-gather go round rings");
  if (hardware.overlaps)
    out.push_back(
        "without a pipeline gradients leave during the last backward pass, with one after it; "
        "shared experts hide the dispatch of rows; nothing hides the all-gather of parameters");
  out.push_back(
      "every rank has the same work (balanced experts, pages spread evenly); loading data, "
      "latency, evaluation and checkpoints are not counted");
  if (input.encoder_cached)
    out.push_back(
        "without a pipeline every page's encoder rows are in the encoder cache (which the first "
        "pass over the data fills, as far as encoder_cache.max_bytes allows)");
  return out;
}

nlohmann::ordered_json scale_json(const ScaleInput& input, const Recipe& recipe,
                                  const std::vector<ScalePlan>& plans) {
  nlohmann::ordered_json out = {{"nodes", input.cluster.nodes},
                                {"ranks_per_node", input.cluster.per_node},
                                {"hardware", hardware_json(input.hardware)},
                                {"assumptions", assumptions_of(input, recipe)},
                                {"pages_a_row", input.pages},
                                {"tokens_a_page", input.page_tokens}};
  for (const ScalePlan& plan : plans) out["meshes"].push_back(json_of(plan));
  return out;
}

std::string scale_report(const ScaleInput& input, const Recipe& recipe,
                         const std::vector<ScalePlan>& plans) {
  std::string out = fmt::format("{} node(s) of {} x {}. A prediction; taken for granted:\n\n",
                                input.cluster.nodes, input.cluster.per_node, input.hardware.name);
  for (const std::string& each : assumptions_of(input, recipe)) out += fmt::format("* {}\n", each);
  out += "\n" + plan_text(input, plans.front());
  if (plans.size() == 1) return out;
  out +=
      "\n| other meshes | micro-batch | seconds a step | waiting | pages a day | memory of a rank "
      "| "
      "mesh.split |\n|---|---|---|---|---|---|---|\n";
  constexpr std::size_t kRows = 12;
  for (std::size_t i = 1; i < std::min(plans.size(), 1 + kRows); ++i) {
    const ScalePlan& plan = plans[i];
    out += fmt::format("| {} | {} | {:.3f} | {:.0f} % | {} | {}{} | [{}] |\n", mesh_name(plan),
                       plan.micro_batch, plan.seconds, 100 * plan.pipeline.bubble,
                       count_text(plan.pages_a_day), memory_text(plan.memory.total()),
                       plan.fits ? "" : ", does not fit", fmt::join(plan.pipeline.ends, ", "));
  }
  if (plans.size() > 1 + kRows)
    out += fmt::format("\n{} more are in --json.\n", plans.size() - 1 - kRows);
  return out;
}

}  // namespace lectern
