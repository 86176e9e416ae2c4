// Showing how training goes: one line that rewrites itself on a terminal, a plain line every few
// seconds anywhere else (a log file, a job's output).
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>

namespace lectern {

/// "1:05", "2:03:04", "3d 04:05"; "-" when not known (negative or not finite). `seconds` is
/// rounded.
std::string format_duration(double seconds);
/// "950", "12.3k", "4.56M"; three significant digits.
std::string format_count(double number);

/// What a step reports.
struct StepReport {
  std::int64_t step = 0;
  double loss = 0;
  double learning_rate = 0;
  double tokens_per_second = 0;
};

/// "step 120/1000  loss 2.3456  lr 1.00e-04  12.3k tok/s  left 1:05"
std::string progress_line(const StepReport& report, std::int64_t total_steps, double seconds_left);

/// Makes spdlog's default logger write "12:34:56 info ..." to stderr, with the rank where there are
/// several.
void set_up_log(std::int64_t rank = 0, std::int64_t ranks = 1);

class Progress {
 public:
  struct Options {
    std::int64_t first_step = 0;  // steps done before this process (a resumed run)
    std::int64_t total_steps = 0;
    double seconds_between_lines = 10;  // on a terminal: 0.1
    std::string label;                  // in front of every line, such as "stage 1"
    std::FILE* out = stderr;
    std::function<double()> clock;  // seconds; default: the steady clock
    int terminal = -1;              // 1, 0, or -1: ask the system about `out`
  };

  explicit Progress(Options options);
  /// Ends the rewriting line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Call after every step. Always shows the last one.
  void update(const StepReport& report);
  /// Prints a line of its own (an evaluation, a checkpoint) without breaking the rewriting one;
  /// through spdlog when `out` is stderr.
  void say(std::string_view message);

 private:
  void clear();
  void show(const std::string& line);

  Options options_;
  bool terminal_ = false;
  double started_ = 0;
  double shown_ = -1e300;
  bool line_open_ = false;
  std::string last_line_;
};

}  // namespace lectern
