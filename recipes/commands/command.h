// The sub-commands of build/lectern. Each lives in recipes/commands/<name>.cpp: it declares its
// arguments and a callback; main.cpp parses, runs the chosen callback and turns exceptions into one
// line on stderr and an exit status.
#pragma once

#include <CLI/CLI.hpp>

namespace lectern::commands {

/// Ends this process with status 1 and no message: it has been given, here or by another rank.
struct AlreadyTold {};

/// Adds every command, in the order that --help lists them.
void add_all(CLI::App& app);

void add_tokenizer(CLI::App& app);
void add_data(CLI::App& app);
void add_data_shards(CLI::App& data);     // under `lectern data`
void add_data_synthetic(CLI::App& data);  // the same
void add_data_segments(CLI::App& data);   // the same
void add_score(CLI::App& app);
void add_info(CLI::App& app);
void add_parity(CLI::App& app);
void add_train(CLI::App& app);
void add_plan(CLI::App& app);
void add_eval(CLI::App& app);
void add_ocr(CLI::App& app);
void add_export(CLI::App& app);
void add_bench(CLI::App& app);
void add_report(CLI::App& app);
void add_ablate(CLI::App& app);

}  // namespace lectern::commands
