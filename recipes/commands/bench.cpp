// lectern bench step: one training step on random data, timed.
#include "recipes/bench_step.h"
#include "recipes/commands/command.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <memory>

namespace lectern::commands {

void add_bench(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "timings");
  bench->require_subcommand(1);
  auto args = std::make_shared<BenchStepArgs>();
  CLI::App* step =
      bench->add_subcommand("step", "one training step on random data; prints one JSON line");
  step->add_option("--config", args->config, "config.json, transformers layout")->required();
  step->add_option("--batch", args->batch, "pages a step")->check(CLI::Range(1, 4096));
  step->add_option("--crops", args->crops, "local 768x768 views a page")->check(CLI::Range(0, 6));
  step->add_option("--text", args->text, "text tokens a page")->check(CLI::Range(2, 1 << 20));
  step->add_option("--steps", args->steps, "timed steps, after two that warm up")
      ->check(CLI::Range(1, 100000));
  step->add_option("--threads", args->threads, "CPU threads; 0: all cores")
      ->check(CLI::Range(0, 1024));
  step->add_option("--dtype", args->dtype, "of compute: fp32 or bf16")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  step->add_option("--stage", args->stage, "2 freezes the vision tokenizer, 3 the encoder")
      ->check(CLI::Range(1, 3));
  auto device = std::make_shared<std::string>("cpu");
  auto as_json = std::make_shared<bool>(true);
  step->add_flag("--json", *as_json, "output is JSON already; accepted for uniformity");
  step->add_option("--device", *device, "cpu")->check(CLI::IsMember({"cpu"}));
  step->add_flag("--encoder-cache", args->encoder_cache,
                 "stage 3: read the encoder's rows from a cache on disk, as training does");
  step->add_flag("--profile", args->profile,
                 "before the JSON line, tables of where the time of the timed steps went");
  step->callback([args, device, as_json] {
    const auto result = bench_step(*args);
    if (args->profile) fmt::print("{}\n", profile_tables(result["profile"]));
    fmt::print("{}\n", result.dump());
  });
}

}  // namespace lectern::commands
