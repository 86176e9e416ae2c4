// One description of a record of settings. `describe(record, visitor)` names the fields of a record
// once, in their order, each with its key, what it may be and what it means; what has to be done
// with them, reading a table of TOML or an object of JSON, writing, hashing, a table of
// documentation, is a visitor. The record's values before reading are the defaults.
//
//   void describe(BatchRecipe& r, FieldVisitor& f) {
//     f.integer("global_size", r.global_size, at_least(1), {.unit = "samples", .required = true});
//   }
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace lectern {

/// A range of numbers, ends included unless `above` (then `min` itself is refused).
template <typename T>
struct Range {
  T min = std::numeric_limits<T>::lowest();
  T max = std::numeric_limits<T>::max();
  bool above = false;
};
inline Range<std::int64_t> at_least(std::int64_t min) { return {.min = min}; }
inline Range<std::int64_t> within(std::int64_t min, std::int64_t max) {
  return {.min = min, .max = max};
}
inline Range<double> positive() { return {.min = 0.0, .above = true}; }
inline Range<double> not_negative() { return {.min = 0.0}; }
inline Range<double> between(double min, double max) { return {.min = min, .max = max}; }

template <typename T>
bool contains(const Range<T>& range, T value) {
  return (range.above ? value > range.min : value >= range.min) && value <= range.max;
}
/// For messages: "an integer from 1 to 3", "a number above 0", "an integer".
std::string wording(const Range<std::int64_t>& range);
std::string wording(const Range<double>& range);

/// What documentation says of a field beside its key, its range and its default.
struct FieldNote {
  std::string_view unit = {};       ///< "steps", "pixels", "path"
  std::string_view meaning = {};    ///< one sentence
  std::string_view otherwise = {};  ///< the default, where the value does not say it
  bool required = false;            ///< there is no default
};

/// One field as a visitor gets it. Values may be changed where the visitor reads them.
struct Field {
  using Value =
      std::variant<std::int64_t*, double*, bool*, std::string*, std::vector<std::int64_t>*,
                   std::vector<double>*, std::vector<std::string>*, std::array<double, 2>*,
                   std::array<std::int64_t, 2>*>;
  std::string_view key;
  Value value;
  const FieldNote& note;
  Range<std::int64_t> integers = {};      ///< of an integer and of each of a list
  Range<double> numbers = {};             ///< of a number and of each of a list or pair
  std::vector<std::string> choices = {};  ///< of a text; none: any text
  bool rising = false;                    ///< of a pair: the smaller first
};

/// Takes the fields of a record one after another.
class FieldVisitor {
 public:
  virtual ~FieldVisitor() = default;
  virtual void visit(const Field& field) = 0;

  void integer(std::string_view key, std::int64_t& value, Range<std::int64_t> range,
               const FieldNote& note = {}) {
    visit({.key = key, .value = &value, .note = note, .integers = range});
  }
  void number(std::string_view key, double& value, Range<double> range,
              const FieldNote& note = {}) {
    visit({.key = key, .value = &value, .note = note, .numbers = range});
  }
  void boolean(std::string_view key, bool& value, const FieldNote& note = {}) {
    visit({.key = key, .value = &value, .note = note});
  }
  void text(std::string_view key, std::string& value, const FieldNote& note = {}) {
    visit({.key = key, .value = &value, .note = note});
  }
  void choice(std::string_view key, std::string& value, std::vector<std::string> choices,
              const FieldNote& note = {}) {
    visit({.key = key, .value = &value, .note = note, .choices = std::move(choices)});
  }
  void integers(std::string_view key, std::vector<std::int64_t>& values, Range<std::int64_t> range,
                const FieldNote& note = {}) {
    visit({.key = key, .value = &values, .note = note, .integers = range});
  }
  void numbers(std::string_view key, std::vector<double>& values, Range<double> range,
               const FieldNote& note = {}) {
    visit({.key = key, .value = &values, .note = note, .numbers = range});
  }
  void texts(std::string_view key, std::vector<std::string>& values, const FieldNote& note = {}) {
    visit({.key = key, .value = &values, .note = note});
  }
  /// Two numbers.
  void pair(std::string_view key, std::array<double, 2>& values, Range<double> range,
            const FieldNote& note = {}) {
    visit({.key = key, .value = &values, .note = note, .numbers = range});
  }
  /// Two numbers, the smaller first.
  void span(std::string_view key, std::array<double, 2>& values, Range<double> range,
            const FieldNote& note = {}) {
    visit({.key = key, .value = &values, .note = note, .numbers = range, .rising = true});
  }
  void span(std::string_view key, std::array<std::int64_t, 2>& values, Range<std::int64_t> range,
            const FieldNote& note = {}) {
    visit({.key = key, .value = &values, .note = note, .integers = range, .rising = true});
  }
};

/// All values of a record, one after another: "0.15 3 true 12 16". For fingerprints.
class FieldValues final : public FieldVisitor {
 public:
  void visit(const Field& field) override;
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

/// Checks numbers and choices of a record that no file was read for. Throws ConfigError "<of>:
/// <key> must be <rule>, got <value>".
class FieldCheck final : public FieldVisitor {
 public:
  explicit FieldCheck(std::string of) : of_(std::move(of)) {}
  void visit(const Field& field) override;

 private:
  std::string of_;
};

/// The keys of a record.
class FieldKeys final : public FieldVisitor {
 public:
  void visit(const Field& field) override { keys_.emplace_back(field.key); }
  const std::vector<std::string>& keys() const { return keys_; }

 private:
  std::vector<std::string> keys_;
};

}  // namespace lectern
