#include "recipes/log/step_trace.h"

#include "core/device_backend.h"
#include "core/io/file.h"

#include <fmt/core.h>

#include <algorithm>

namespace lectern {
namespace {

constexpr int kProcess = 1, kHostRow = 1, kDeviceRow = 2;

std::string_view category_of(ProfileSpan::Kind kind) {
  switch (kind) {
    case ProfileSpan::Kind::mark:
      return "operation";
    case ProfileSpan::Kind::product:
      return "product";
    case ProfileSpan::Kind::device:
      return "device";
  }
  return "?";
}

nlohmann::json complete_event(std::string_view name, std::string_view category, int row,
                              double begin, double seconds) {
  return {{"ph", "X"},       {"pid", kProcess},   {"tid", row},          {"name", name},
          {"cat", category}, {"ts", begin * 1e6}, {"dur", seconds * 1e6}};
}

nlohmann::json name_event(std::string_view what, int row, std::string_view name) {
  return {{"ph", "M"},    {"pid", kProcess}, {"tid", row},
          {"name", what}, {"ts", 0},         {"args", {{"name", name}}}};
}

}  // namespace

TracedSteps traced_steps(std::int64_t next, std::int64_t last) {
  constexpr std::int64_t kWarmUp = 2, kTraced = 3;
  const std::int64_t first = std::min(next + kWarmUp, std::max(next, last - kTraced + 1));
  return {first, std::min(last, first + kTraced - 1)};
}

void StepTrace::begin(std::int64_t step) {
  if (step < steps_.first || step > steps_.last) return;
  if (step == steps_.first) {
    if (device_.type != DeviceType::cpu) device_backend(device_).start_trace(device_);
    start_profile(true);
  }
  begin_ = profile_mark("", "between steps");
}

void StepTrace::end(std::int64_t step) {
  if (step < steps_.first || step > steps_.last) return;
  done_.push_back({step, begin_, profile_mark("", "report")});
}

bool StepTrace::write(bool run_is_over) {
  if (written_ || done_.empty()) return false;
  if (!run_is_over && done_.back().number < steps_.last) return false;
  written_ = true;
  const std::vector<ProfileSpan> host = stop_profile().spans;
  std::vector<ProfileSpan> device;
  if (device_.type != DeviceType::cpu) device = device_backend(device_).stop_trace(device_);
  write_file(
      file_,
      nlohmann::json{{"displayTimeUnit", "ms"}, {"traceEvents", events(host, device)}}.dump());
  return true;
}

nlohmann::json StepTrace::events(const std::vector<ProfileSpan>& host,
                                 const std::vector<ProfileSpan>& device) const {
  nlohmann::json out = {name_event("process_name", kHostRow, "lectern train"),
                        name_event("thread_name", kHostRow, "training thread")};
  if (!device.empty()) out.push_back(name_event("thread_name", kDeviceRow, to_string(device_)));
  for (const Step& step : done_)
    out.push_back(complete_event(fmt::format("step {}", step.number), "step", kHostRow, step.begin,
                                 step.end - step.begin));
  for (const ProfileSpan& span : host)
    out.push_back(
        complete_event(span.name, category_of(span.kind), kHostRow, span.begin, span.seconds));
  for (const ProfileSpan& span : device)
    out.push_back(
        complete_event(span.name, category_of(span.kind), kDeviceRow, span.begin, span.seconds));
  return out;
}

}  // namespace lectern
