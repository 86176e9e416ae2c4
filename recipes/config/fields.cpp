#include "recipes/config/fields.h"

#include <fmt/format.h>

#include <optional>

namespace lectern {
namespace {

/// Reads one field into what it points at, by the kind of that.
struct Read {
  ConfigReader& table;
  const Field& field;

  template <typename T>
  std::optional<T> otherwise(const T& value) const {
    return field.note.required ? std::nullopt : std::optional<T>(value);
  }
  void operator()(std::int64_t* out) const {
    *out = table.integer(field.key, otherwise(*out), field.integers);
  }
  void operator()(double* out) const {
    *out = table.number(field.key, otherwise(*out), field.numbers);
  }
  void operator()(bool* out) const { *out = table.boolean(field.key, otherwise(*out)); }
  void operator()(std::string* out) const {
    *out = field.choices.empty() ? table.string(field.key, otherwise(*out))
                                 : table.choice(field.key, otherwise(*out), field.choices);
  }
  void operator()(std::vector<std::int64_t>* out) const {
    *out = table.integers(field.key, otherwise(*out), field.integers);
  }
  void operator()(std::vector<double>* out) const {
    *out = table.numbers(field.key, otherwise(*out), field.numbers);
  }
  void operator()(std::vector<std::string>* out) const {
    *out = table.strings(field.key, otherwise(*out));
  }
  void operator()(std::array<double, 2>* out) const { pair(*out, field.numbers); }
  void operator()(std::array<std::int64_t, 2>* out) const {
    pair(*out, Range<double>{.min = static_cast<double>(field.integers.min),
                             .max = static_cast<double>(field.integers.max)});
  }

  template <typename T>
  void pair(std::array<T, 2>& out, const Range<double>& range) const {
    const auto values =
        table.numbers(field.key, otherwise(std::vector<double>(out.begin(), out.end())), range);
    if (values.size() != 2 || (field.rising && values[0] > values[1]))
      table.refuse(field.key, field.rising
                                  ? "must be two numbers, the smaller first"
                                  : fmt::format("must be two numbers, got {}", values.size()));
    out = {static_cast<T>(values[0]), static_cast<T>(values[1])};
  }
};

}  // namespace

void TableFields::visit(const Field& field) { std::visit(Read{table_, field}, field.value); }

}  // namespace lectern
