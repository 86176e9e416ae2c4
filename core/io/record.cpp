#include "core/io/record.h"

#include "core/error.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <type_traits>

namespace lectern {
namespace {

template <typename T>
std::string word(const char* noun, const Range<T>& range) {
  const bool low = range.min != std::numeric_limits<T>::lowest();
  const bool high = range.max != std::numeric_limits<T>::max();
  if (low && high && !range.above)
    return fmt::format("{} from {} to {}", noun, range.min, range.max);
  std::string out = noun;
  if (low) out += fmt::format(" {} {}", range.above ? "above" : "of at least", range.min);
  if (high) out += fmt::format("{} of at most {}", low ? " and" : "", range.max);
  return out;
}

template <typename T>
std::string text_of(const T& value) {
  if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>)
    return fmt::format("{}", value);
  else
    return fmt::format("{}", fmt::join(value, " "));
}

/// What one value of a field must be, "" when it is that.
struct Rule {
  const Field& field;

  template <typename T>
  std::string each(const std::vector<T>& values, const Range<T>& range) const {
    const bool fits =
        std::all_of(values.begin(), values.end(), [&](T value) { return contains(range, value); });
    return fits ? "" : "a list, each " + wording(range);
  }
  template <typename T>
  std::string pair(const std::array<T, 2>& values, const Range<T>& range) const {
    const bool fits = contains(range, values[0]) && contains(range, values[1]) &&
                      (!field.rising || values[0] <= values[1]);
    return fits ? ""
                : fmt::format("two numbers{}, each {}", field.rising ? ", the smaller first" : "",
                              wording(range));
  }
  std::string operator()(const bool*) const { return ""; }
  std::string operator()(const std::vector<std::string>*) const { return ""; }
  std::string operator()(const std::int64_t* value) const {
    return contains(field.integers, *value) ? "" : wording(field.integers);
  }
  std::string operator()(const double* value) const {
    return contains(field.numbers, *value) ? "" : wording(field.numbers);
  }
  std::string operator()(const std::string* value) const {
    const auto& choices = field.choices;
    const bool fits =
        choices.empty() || std::find(choices.begin(), choices.end(), *value) != choices.end();
    return fits ? "" : fmt::format("one of {}", fmt::join(choices, ", "));
  }
  std::string operator()(const std::vector<std::int64_t>* values) const {
    return each(*values, field.integers);
  }
  std::string operator()(const std::vector<double>* values) const {
    return each(*values, field.numbers);
  }
  std::string operator()(const std::array<double, 2>* values) const {
    return pair(*values, field.numbers);
  }
  std::string operator()(const std::array<std::int64_t, 2>* values) const {
    return pair(*values, field.integers);
  }
};

std::string text_of_field(const Field& field) {
  return std::visit([](const auto* value) { return text_of(*value); }, field.value);
}

}  // namespace

std::string wording(const Range<std::int64_t>& range) { return word("an integer", range); }
std::string wording(const Range<double>& range) { return word("a number", range); }

void FieldValues::visit(const Field& field) {
  text_ += (text_.empty() ? "" : " ") + text_of_field(field);
}

void FieldCheck::visit(const Field& field) {
  const std::string rule = std::visit(Rule{field}, field.value);
  if (!rule.empty())
    fail<ConfigError>(
        fmt::format("{}: {} must be {}, got {}", of_, field.key, rule, text_of_field(field)));
}

}  // namespace lectern
