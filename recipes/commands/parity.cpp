// lectern parity DIR: how far lectern is from a reference fixture.
#include "recipes/parity/parity.h"

#include "core/error.h"
#include "core/io/file.h"
#include "recipes/commands/command.h"
#include "recipes/machine/device.h"
#include "recipes/parity/kinds.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <filesystem>
#include <string>

namespace lectern::commands {
namespace {

ParityReport run_parity(const std::filesystem::path& folder, Device device) {
  const auto file = folder / "case.json";
  const nlohmann::json json = parse_json(read_file(file), file.string());
  const std::string kind = json.is_object() && json.contains("kind") && json["kind"].is_string()
                               ? json["kind"].get<std::string>()
                               : "";
  std::string known;
  for (const ParityKind& each : parity_kinds()) {
    if (each.name == kind) return each.run(folder, device);
    known += fmt::format("{}\"{}\"", known.empty() ? "" : ", ", each.name);
  }
  fail<ConfigError>(
      fmt::format("{}: kind must be one of {}, got \"{}\"", file.string(), known, kind));
}

void print_table(const ParityReport& report) {
  for (const ParityRow& row : report.rows)
    fmt::print("{:4}  {:<52} {:>10.3e}  bound {:>8.1e}  {}\n", row.passed ? "ok" : "FAIL", row.what,
               row.difference, row.bound, row.note);
  std::size_t passed = 0;
  for (const ParityRow& row : report.rows) passed += row.passed ? 1 : 0;
  fmt::print("{} of {} comparisons passed\n", passed, report.rows.size());
}

void print_json(const ParityReport& report) {
  nlohmann::json rows = nlohmann::json::array();
  for (const ParityRow& row : report.rows)
    rows.push_back({{"what", row.what},
                    {"difference", std::isfinite(row.difference) ? nlohmann::json(row.difference)
                                                                 : nlohmann::json(nullptr)},
                    {"bound", row.bound},
                    {"passed", row.passed},
                    {"note", row.note}});
  fmt::print("{}\n", nlohmann::json{{"passed", report.passed()}, {"rows", rows}}.dump());
}

}  // namespace

void add_parity(CLI::App& app) {
  struct Options {
    std::string folder, device = "cpu";
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("parity", "compare with a reference fixture, seam by seam");
  command->add_option("DIR", options->folder, "fixture folder (case.json names its kind)")
      ->required();
  command->add_option("--device", options->device, "cpu, or cuda for fixtures of whole models")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  command->add_flag("--json", options->json, "print one JSON object");
  command->callback([options] {
    const ParityReport report = run_parity(options->folder, use_device(options->device));
    options->json ? print_json(report) : print_table(report);
    if (!report.passed()) fail<NumericError>(fmt::format("{}: parity failed", options->folder));
  });
}

}  // namespace lectern::commands
