// lectern bench: training steps, generation, memory and residual streams, timed on random data.
#include "recipes/bench/checkpoint.h"
#include "recipes/bench/generate.h"
#include "recipes/bench/step.h"
#include "recipes/bench/streams.h"
#include "recipes/commands/command.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <memory>

namespace lectern::commands {
namespace {

void add_threads(Command command, std::int64_t& threads) {
  command.add_option("--threads", threads, "CPU threads; 0: all cores").range(0, 1024);
}

/// The output is one JSON line whether or not it is asked for.
void accept_json(Command command) {
  command.add_flag("--json", "output is JSON already; accepted for uniformity");
}

void add_step(Command bench) {
  auto args = std::make_shared<BenchStepArgs>();
  Command step =
      bench.add_subcommand("step", "one training step on random data; prints one JSON line");
  step.add_option("--config", args->config, "config.json, transformers layout").required();
  step.add_option("--batch", args->batch, "pages a step").range(1, 4096);
  step.add_option("--crops", args->crops, "local 768x768 views a page").range(0, 6);
  step.add_option("--text", args->text, "text tokens a page").range(2, 1 << 20);
  step.add_option("--steps", args->steps, "timed steps, after two that warm up").range(1, 100000);
  add_threads(step, args->threads);
  step.add_option("--dtype", args->dtype, "of compute: fp32 or bf16").one_of({"fp32", "bf16"});
  step.add_option("--stage", args->stage, "2 freezes the vision tokenizer, 3 the encoder")
      .range(1, 3);
  accept_json(step);
  step.add_option("--device", args->device, "cpu or cuda").one_of({"cpu", "cuda"});
  step.add_flag("--recompute", args->recompute,
                "keep inputs of blocks only and compute the rest again in backward");
  step.add_option("--memory-gib", args->memory_gib,
                  "recompute only as many blocks as this budget of tensors needs; 0: none")
      .range(0.0, 1e6);
  step.add_flag("--encoder-cache", args->encoder_cache,
                "stage 3: read the encoder's rows from a cache on disk, as training does");
  step.add_flag("--profile", args->profile,
                "before the JSON line, tables of where the time of the timed steps went");
  step.callback([args] {
    const auto result = bench_step(*args);
    if (args->profile) fmt::print("{}\n", profile_tables(result["profile"]));
    fmt::print("{}\n", result.dump());
  });
}

void add_checkpoint(Command bench) {
  auto args = std::make_shared<BenchCheckpointArgs>();
  args->step.crops = 0;
  args->step.steps = 3;
  Command command = bench.add_subcommand(
      "checkpoint", "how long a checkpoint keeps training waiting; prints one JSON line");
  command.add_option("--config", args->step.config, "config.json, transformers layout").required();
  command.add_option("--out", args->out, "folder for the checkpoints, on the disk to be timed")
      .required();
  command.add_option("--batch", args->step.batch, "pages a step").range(1, 4096);
  command.add_option("--crops", args->step.crops, "local 768x768 views a page").range(0, 6);
  command.add_option("--text", args->step.text, "text tokens a page").range(2, 1 << 20);
  command.add_option("--steps", args->step.steps, "steps without a checkpoint, after two warm-ups")
      .range(1, 100000);
  command.add_option("--stage", args->step.stage, "2 freezes the vision tokenizer, 3 the encoder")
      .range(1, 3);
  command.add_option("--dtype", args->step.dtype, "of compute: fp32 or bf16")
      .one_of({"fp32", "bf16"});
  command.add_flag("--recompute", args->step.recompute,
                   "keep inputs of blocks only and compute the rest again in backward");
  add_threads(command, args->step.threads);
  accept_json(command);
  command.callback([args] { fmt::print("{}\n", bench_checkpoint(*args).dump()); });
}

void add_generate(Command bench) {
  auto args = std::make_shared<BenchGenerateArgs>();
  Command command = bench.add_subcommand(
      "generate", "greedy generation on random pages, timed; prints one JSON line");
  command.add_option("--config", args->config, "config.json, transformers layout").required();
  command.add_option("--checkpoint", args->checkpoint,
                     "folder with model*.safetensors; default: random weights");
  command.add_option("--batch", args->batch, "pages at once").range(1, 4096);
  command.add_option("--crops", args->crops, "local 768x768 views a page").range(0, 6);
  command.add_option("--tokens", args->tokens, "decoded tokens that are timed").range(1, 1 << 20);
  add_threads(command, args->threads);
  command.add_option("--dtype", args->dtype, "of the weights: fp32 or bf16")
      .one_of({"fp32", "bf16"});
  accept_json(command);
  command.callback([args] { fmt::print("{}\n", bench_generate(*args).dump()); });
}

void add_write_weights(Command bench) {
  struct Options {
    std::string config, out;
    std::uint64_t seed = 0;
  };
  auto options = std::make_shared<Options>();
  Command command =
      bench.add_subcommand("write-weights", "random bf16 weights of a model, as a checkpoint");
  command.add_option("--config", options->config, "config.json, transformers layout").required();
  command.add_option("--out", options->out, "folder for config.json and model.safetensors")
      .required();
  command.add_option("--seed", options->seed, "which ones");
  accept_json(command);
  command.callback([options] {
    fmt::print("{}\n", write_random_weights(options->config, options->out, options->seed).dump());
  });
}

void add_bandwidth(Command bench) {
  struct Options {
    std::string file;
    std::int64_t threads = 0;
  };
  auto options = std::make_shared<Options>();
  Command command =
      bench.add_subcommand("bandwidth", "bytes a second that memory gives; prints one JSON line");
  command.add_option("--file", options->file, "also read this file through a mapping");
  add_threads(command, options->threads);
  accept_json(command);
  command.callback(
      [options] { fmt::print("{}\n", bench_bandwidth(options->threads, options->file).dump()); });
}

void add_bench_streams(Command bench) {
  auto args = std::make_shared<BenchStreamsArgs>();
  Command mhc = bench.add_subcommand(
      "mhc", "residual streams: Sinkhorn, one sub-layer, one decoder layer; a JSON line each");
  mhc.add_option("--tokens", args->tokens, "of the sub-layer and the decoder layer")
      .range(1, 1 << 20);
  mhc.add_option("--sinkhorn-tokens", args->sinkhorn_tokens, "of Sinkhorn alone").range(1, 1 << 24);
  add_threads(mhc, args->threads);
  mhc.add_option("--repeat", args->repeat, "timed runs, after one that warms up").range(1, 100000);
  mhc.callback([args] {
    for (const auto& line : bench_streams(*args)) fmt::print("{}\n", line.dump());
  });
}

}  // namespace

void add_bench(Command app) {
  Command bench = app.add_subcommand("bench", "timings");
  bench.require_subcommand();
  add_step(bench);
  add_checkpoint(bench);
  add_generate(bench);
  add_write_weights(bench);
  add_bandwidth(bench);
  add_bench_streams(bench);
}

}  // namespace lectern::commands
