// TensorBoard event files: scalars and text, in the TFRecord framing (length, masked CRC-32C of
// the length, event, masked CRC-32C of the event; all little-endian).
//
// The few messages we write are coded straight with protobuf's CodedOutputStream; field numbers
// are those of tensorflow/core/util/event.proto and framework/{summary,tensor}.proto.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lectern {

/// One event record's bytes, without framing. `wall_time` in seconds since 1970.
std::string scalar_event(double wall_time, std::int64_t step,
                         const std::vector<std::pair<std::string, double>>& scalars);
std::string text_event(double wall_time, std::int64_t step, std::string_view tag,
                       std::string_view markdown);
/// First record of a file.
std::string version_event(double wall_time);
/// Tells TensorBoard that everything at or after `step` in earlier files was lost.
std::string restart_event(double wall_time, std::int64_t step);
/// A record in its TFRecord frame.
std::string frame(std::string_view event);

/// Writes `<folder>/events.out.tfevents.<seconds>.<host>.<process>`. Throws IoError.
class EventWriter {
 public:
  /// `resume_step` > 0 marks a restart: later points of earlier files disappear from the curves.
  /// TensorBoard reads the files of a folder in the order of their names, so <seconds> is after
  /// those of the files that are there, even when the clock was set back since; for the same reason
  /// times of events never fall. `clock`: seconds since 1970; none: the system's.
  EventWriter(const std::filesystem::path& folder, std::int64_t resume_step = 0,
              std::function<double()> clock = {});
  ~EventWriter();
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  void scalars(std::int64_t step, const std::vector<std::pair<std::string, double>>& values);
  /// Shown as Markdown under "Text".
  void text(std::int64_t step, std::string_view tag, std::string_view markdown);
  const std::filesystem::path& path() const { return path_; }

 private:
  void write(std::string_view event);
  double time();

  std::function<double()> clock_;
  double last_time_ = 0;
  std::filesystem::path path_;
  std::FILE* file_ = nullptr;
};

}  // namespace lectern
