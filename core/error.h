// Errors: one family of exceptions, one form of message.
//
//   <operation>: <rule>, got <found> at <file>:<line>
//   hint: <what usually mends it>                         (only when known)
//
// Throw on what a user can cause (shapes, files, configuration); use assert for our own mistakes.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace lectern {

/// Base of every error that lectern throws on purpose. `what()` is one complete message.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A tensor has the wrong number of dimensions or the wrong size.
class ShapeError : public Error {
  using Error::Error;
};
/// A tensor has an element type that the operation does not take.
class DTypeError : public Error {
  using Error::Error;
};
/// A tensor is on the wrong device, or no kernel exists for its device.
class DeviceError : public Error {
  using Error::Error;
};
/// A file is missing, truncated, malformed or cannot be written. The message names file and field.
class IoError : public Error {
  using Error::Error;
};
/// A recipe, model configuration or command-line value is unusable. The message names the field.
class ConfigError : public Error {
  using Error::Error;
};
/// Memory could not be had. The message names how much was asked for.
class MemoryError : public Error {
  using Error::Error;
};
/// A number that must be finite is not (loss, gradient).
class NumericError : public Error {
  using Error::Error;
};

/// Where a check stands in the source; filled in by default arguments (std::source_location is
/// not understood by clang 14, and default member values in a header stop nvcc 13).
struct SourceLocation {
  const char* file;
  int line;
  SourceLocation(const char* file = __builtin_FILE(), int line = __builtin_LINE())
      : file(file), line(line) {}
};

/// Throws `E` with `message`, followed by the source position that found the fault.
template <typename E>
[[noreturn]] void fail(const std::string& message, SourceLocation where = {}) {
  std::string_view file = where.file;
  if (const auto slash = file.rfind('/'); slash != std::string_view::npos) {
    const auto folder = file.rfind('/', slash - 1);
    file.remove_prefix(folder == std::string_view::npos ? 0 : folder + 1);
  }
  throw E(fmt::format("{} at {}:{}", message, file, where.line));
}

}  // namespace lectern
