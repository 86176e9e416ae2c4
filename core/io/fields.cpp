#include "core/io/fields.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace lectern {

using nlohmann::json;

Fields::Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object.is_object())
    fail<ConfigError>(fmt::format("{}: must be an object, got {}", where_, object.type_name()));
}

void Fields::watch() { asked_ = std::make_shared<Names>(); }

void Fields::asked(const char* field) const {
  if (asked_) asked_->emplace(field);
}

Fields Fields::below(const json& object, std::string where) const {
  Fields out(object, std::move(where));
  if (asked_) out.watch();
  return out;
}

std::vector<std::string> Fields::unread() const {
  std::vector<std::string> out;
  if (!asked_) return out;
  for (const auto& [name, value] : object_.items())
    if (!value.is_null() && !asked_->contains(name)) out.push_back(name);
  return out;
}

bool Fields::has(const char* field) const {
  asked(field);
  return object_.contains(field) && !object_[field].is_null();
}

void Fields::required(const char* field) const {
  if (!has(field)) fail<ConfigError>(fmt::format("{}.{}: is required", where_, field));
}

std::int64_t Fields::size(const char* field, std::int64_t fallback, std::int64_t low,
                          std::int64_t high) const {
  if (!has(field)) {
    if (fallback < low || fallback > high)
      fail<ConfigError>(fmt::format("{}.{}: is required", where_, field));
    return fallback;
  }
  const json& value = object_[field];
  if (!value.is_number_integer() || value.get<std::int64_t>() < low ||
      value.get<std::int64_t>() > high)
    fail<ConfigError>(fmt::format("{}.{}: must be an integer from {} to {}, got {}", where_, field,
                                  low, high, value.dump()));
  return value.get<std::int64_t>();
}

double Fields::number(const char* field, double fallback, double low, double high) const {
  if (!has(field)) return fallback;
  const json& value = object_[field];
  if (!value.is_number() || !(value.get<double>() >= low && value.get<double>() <= high))
    fail<ConfigError>(fmt::format("{}.{}: must be a number from {} to {}, got {}", where_, field,
                                  low, high, value.dump()));
  return value.get<double>();
}

bool Fields::boolean(const char* field, bool fallback) const {
  if (!has(field)) return fallback;
  if (!object_[field].is_boolean())
    fail<ConfigError>(
        fmt::format("{}.{}: must be true or false, got {}", where_, field, object_[field].dump()));
  return object_[field].get<bool>();
}

std::string Fields::text(const char* field, const std::string& fallback) const {
  if (!has(field)) return fallback;
  if (!object_[field].is_string())
    fail<ConfigError>(
        fmt::format("{}.{}: must be a string, got {}", where_, field, object_[field].dump()));
  return object_[field].get<std::string>();
}

std::string Fields::choice(const char* field, const std::string& fallback,
                           const std::vector<std::string>& words) const {
  const std::string word = text(field, fallback);
  if (std::find(words.begin(), words.end(), word) == words.end())
    fail<ConfigError>(fmt::format("{}.{}: must be one of {}, got \"{}\"", where_, field,
                                  json(words).dump(), word));
  return word;
}

std::vector<std::int64_t> Fields::sizes(const char* field, std::vector<std::int64_t> fallback,
                                        std::int64_t low) const {
  if (!has(field)) return fallback;
  const json& value = object_[field];
  std::vector<std::int64_t> out;
  const bool fits = value.is_array() && value.size() <= 4096 &&
                    std::all_of(value.begin(), value.end(), [&](const json& item) {
                      return item.is_number_integer() && item.get<std::int64_t>() >= low &&
                             item.get<std::int64_t>() <= (std::int64_t{1} << 31);
                    });
  if (!fits)
    fail<ConfigError>(fmt::format("{}.{}: must be a list of integers of {} or more, got {}", where_,
                                  field, low, value.dump()));
  return value.get<std::vector<std::int64_t>>();
}

void Fields::only(const char* field, const json& expected) const {
  if (has(field) && object_[field] != expected)
    fail<ConfigError>(fmt::format("{}.{}: only {} is supported, got {}", where_, field,
                                  expected.dump(), object_[field].dump()));
}

Fields Fields::object(const char* field) const {
  required(field);
  return below(object_[field], where_ + "." + field);
}

std::vector<Fields> Fields::objects(const char* field) const {
  std::vector<Fields> out;
  if (!has(field)) return out;
  const json& list = object_[field];
  if (!list.is_array())
    fail<ConfigError>(
        fmt::format("{}.{}: must be a list of objects, got {}", where_, field, list.type_name()));
  for (std::size_t i = 0; i < list.size(); ++i)
    out.push_back(below(list[i], fmt::format("{}.{}[{}]", where_, field, i)));
  return out;
}

std::vector<std::string> Fields::texts(const char* field) const {
  if (!has(field)) return {};
  const json& list = object_[field];
  if (!list.is_array() ||
      !std::all_of(list.begin(), list.end(), [](const json& text) { return text.is_string(); }))
    fail<ConfigError>(
        fmt::format("{}.{}: must be a list of strings, got {}", where_, field, list.dump()));
  return list.get<std::vector<std::string>>();
}

const json& Fields::raw(const char* field) const {
  asked(field);
  return object_[field];
}

namespace {

/// Reads what a JSON object has of one field into what the field points at.
struct ReadValue {
  const Fields& in;
  const Field& field;
  std::string key;

  void operator()(std::int64_t* out) const {
    *out = in.size(key.c_str(), *out, field.integers.min, field.integers.max);
  }
  void operator()(double* out) const {
    *out = in.number(key.c_str(), *out, field.numbers.min, field.numbers.max);
  }
  void operator()(bool* out) const { *out = in.boolean(key.c_str(), *out); }
  void operator()(std::string* out) const {
    *out = field.choices.empty() ? in.text(key.c_str(), *out)
                                 : in.choice(key.c_str(), *out, field.choices);
  }
  template <typename List>
  void operator()(List* out) const {
    if (!in.has(key.c_str())) return;
    try {
      *out = in.raw(key.c_str()).get<List>();
    } catch (const json::exception&) {
      fail<ConfigError>(fmt::format("{}.{}: must be a list of values of one kind, got {}",
                                    in.where(), key, in.raw(key.c_str()).dump()));
    }
  }
};

}  // namespace

void ReadFields::visit(const Field& field) {
  const std::string key(field.key);
  if (field.note.required) in_.required(key.c_str());
  std::visit(ReadValue{in_, field, key}, field.value);
  FieldCheck(in_.where()).visit(field);
}

void WriteFields::visit(const Field& field) {
  std::visit([&](const auto* value) { out_[std::string(field.key)] = *value; }, field.value);
}

}  // namespace lectern
