// lectern bench step: one training step on random data, timed. lectern bench mhc: residual streams.
#include "recipes/bench_step.h"
#include "recipes/bench_streams.h"
#include "recipes/commands/command.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <memory>

namespace lectern::commands {

namespace {

void add_bench_streams(CLI::App& bench) {
  auto args = std::make_shared<BenchStreamsArgs>();
  CLI::App* mhc = bench.add_subcommand(
      "mhc", "residual streams: Sinkhorn, one sub-layer, one decoder layer; a JSON line each");
  mhc->add_option("--tokens", args->tokens, "of the sub-layer and the decoder layer")
      ->check(CLI::Range(1, 1 << 20));
  mhc->add_option("--sinkhorn-tokens", args->sinkhorn_tokens, "of Sinkhorn alone")
      ->check(CLI::Range(1, 1 << 24));
  mhc->add_option("--threads", args->threads, "CPU threads; 0: all cores")
      ->check(CLI::Range(0, 1024));
  mhc->add_option("--repeat", args->repeat, "timed runs, after one that warms up")
      ->check(CLI::Range(1, 100000));
  mhc->callback([args] {
    for (const auto& line : bench_streams(*args)) fmt::print("{}\n", line.dump());
  });
}

}  // namespace

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
  step->add_option("--dtype", args->dtype, "fp32")->check(CLI::IsMember({"fp32", "bf16"}));
  step->add_option("--stage", args->stage, "2 freezes the vision tokenizer, 3 the encoder")
      ->check(CLI::Range(1, 3));
  auto device = std::make_shared<std::string>("cpu");
  auto as_json = std::make_shared<bool>(true);
  step->add_flag("--json", *as_json, "output is JSON already; accepted for uniformity");
  step->add_option("--device", *device, "cpu")->check(CLI::IsMember({"cpu"}));
  step->callback([args, device, as_json] { fmt::print("{}\n", bench_step(*args).dump()); });
  add_bench_streams(*bench);
}

}  // namespace lectern::commands
