// Child processes: an argument vector (never a shell), bounded in time, memory and output.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lectern {

struct ProcessLimits {
  double seconds = 60;                                    // wall clock; the child is then killed
  std::uint64_t memory_bytes = std::uint64_t{2} << 30;    // address space
  std::uint64_t output_bytes = std::uint64_t{512} << 20;  // what stdout may give
};

struct ProcessResult {
  int exit_status = 0;
  std::string output;  // stdout
  std::string errors;  // stderr, the first 64 KiB
};

/// Runs argv[0] (looked up in PATH) with an empty stdin and waits for it. Throws IoError naming the
/// program when it cannot be started, runs over a limit or dies of a signal; `subject`, such as the
/// file it works on, is named too. A non-zero exit status is returned.
ProcessResult run_process(const std::vector<std::string>& argv, const std::string& subject,
                          const ProcessLimits& limits = {});

/// The same, and a non-zero exit status is an IoError with the first line of stderr.
ProcessResult run_process_or_fail(const std::vector<std::string>& argv, const std::string& subject,
                                  const ProcessLimits& limits = {});

}  // namespace lectern
