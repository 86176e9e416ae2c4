#include "recipes/log/progress.h"

#include "core/stopwatch.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cmath>

namespace lectern {

namespace {

/// A line that cannot be written (a full disk, a terminal that has gone) is worth less than the
/// run.
void write_text(std::FILE* out, const std::string& text) {
  std::fputs(text.c_str(), out);
  std::clearerr(out);
}

}  // namespace

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e9) return "-";
  const auto total = static_cast<std::int64_t>(std::llround(seconds));
  const std::int64_t minutes = total / 60 % 60, hours = total / 3600 % 24, days = total / 86400;
  if (days > 0) return fmt::format("{}d {:02}:{:02}", days, hours, minutes);
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, total % 60);
  return fmt::format("{}:{:02}", minutes, total % 60);
}

std::string format_count(double number) {
  if (!std::isfinite(number)) return "-";
  static constexpr const char* kUnits[] = {"", "k", "M", "G", "T"};
  int unit = 0;
  while (std::abs(number) >= 999.5 && unit < 4) {
    number /= 1000;
    ++unit;
  }
  const double size = std::abs(number);
  const int digits = unit == 0 || size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  return fmt::format("{:.{}f}{}", number, digits, kUnits[unit]);
}

std::string progress_line(const StepReport& report, std::int64_t total_steps, double seconds_left) {
  return fmt::format("step {}/{}  loss {:.4f}  lr {:.2e}  {} tok/s  left {}", report.step,
                     total_steps, report.loss, report.learning_rate,
                     format_count(report.tokens_per_second), format_duration(seconds_left));
}

void set_up_log(std::int64_t rank, std::int64_t ranks) {
  auto logger = std::make_shared<spdlog::logger>(
      "lectern", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_pattern(ranks > 1 ? fmt::format("%H:%M:%S [rank {}] %^%l%$ %v", rank)
                                : "%H:%M:%S %^%l%$ %v");
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

Progress::Progress(Options options) : options_(std::move(options)) {
  if (!options_.clock) options_.clock = now;
  terminal_ = options_.terminal < 0 ? ::isatty(::fileno(options_.out)) != 0 : options_.terminal;
  if (terminal_) options_.seconds_between_lines = 0.1;
  started_ = options_.clock();
}

Progress::~Progress() {
  if (line_open_) std::fputs("\n", options_.out);
}

void Progress::update(const StepReport& report) {
  const double now = options_.clock();
  const bool last = report.step >= options_.total_steps;
  if (!last && now - shown_ < options_.seconds_between_lines) return;
  const auto done = static_cast<double>(report.step - options_.first_step);
  const auto left = static_cast<double>(options_.total_steps - report.step);
  const double seconds_left = done > 0 ? (now - started_) / done * left : -1;
  std::string line = progress_line(report, options_.total_steps, seconds_left);
  show(options_.label.empty() ? line : options_.label + "  " + line);
  shown_ = now;
}

void Progress::say(std::string_view message) {
  const bool redraw = line_open_;
  clear();
  if (options_.out == stderr)
    spdlog::info("{}", message);
  else
    write_text(options_.out, fmt::format("{}\n", message));
  if (redraw) show(last_line_);
  std::fflush(options_.out);  // may fail, as above
}

void Progress::clear() {
  if (line_open_) std::fputs("\r\033[K", options_.out);
  line_open_ = false;
}

void Progress::show(const std::string& line) {
  clear();
  write_text(options_.out, line + (terminal_ ? "" : "\n"));
  std::fflush(options_.out);
  line_open_ = terminal_;
  last_line_ = line;
}

}  // namespace lectern
