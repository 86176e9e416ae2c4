// The sub-commands of build/lectern. Each lives in recipes/commands/<name>.cpp: it declares its
// arguments and a callback; main.cpp parses, runs the chosen callback and turns exceptions into one
// line on stderr and an exit status.
#pragma once

#include "recipes/commands/command_line.h"

namespace lectern::commands {

/// Ends this process with this status and no message: it has been given, here or by another rank.
struct AlreadyTold {
  int status = 1;
};

/// Writes a line to stderr, its line ends as spaces. That it cannot be written is no reason to
/// stop.
void tell(const std::string& line);

/// Adds every command, in the order that --help lists them.
void add_all(Command app);

void add_tokenizer(Command app);
void add_data(Command app);
void add_data_shards(Command data);     // under `lectern data`
void add_data_pairs(Command data);      // the same
void add_data_synthetic(Command data);  // the same
void add_data_segments(Command data);   // the same
void add_score(Command app);
void add_info(Command app);
void add_parity(Command app);
void add_train(Command app);
void add_plan(Command app);
void add_eval(Command app);
void add_ocr(Command app);
void add_export(Command app);
void add_bench(Command app);
void add_report(Command app);
void add_ablate(Command app);

}  // namespace lectern::commands
