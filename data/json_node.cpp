#include "data/json_node.h"

#include "core/error.h"

#include <algorithm>

namespace lectern {
namespace {

std::string describe(const nlohmann::json& value) {
  if (value.is_object() || value.is_array())
    return fmt::format("an {} of {}", value.type_name(), value.size());
  constexpr std::size_t kLongest = 60;
  std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  return text;
}

}  // namespace

JsonNode JsonNode::operator[](std::string_view key) const {
  static const nlohmann::json kNull;
  if (!is_object()) refuse("be an object");
  const auto found = value_->find(key);
  std::string path = path_.empty() ? std::string(key) : path_ + "." + std::string(key);
  return {found == value_->end() ? kNull : *found, *file_, std::move(path)};
}

JsonNode JsonNode::at(std::size_t index) const {
  if (index >= size()) refuse(fmt::format("have an element {}", index));
  return {(*value_)[index], *file_, fmt::format("{}[{}]", path_, index)};
}

std::size_t JsonNode::size() const {
  if (!value_->is_array()) refuse("be an array");
  return value_->size();
}

const std::string& JsonNode::text() const {
  if (!value_->is_string()) refuse("be a string");
  return value_->get_ref<const std::string&>();
}

bool JsonNode::flag() const {
  if (!value_->is_boolean()) refuse("be true or false");
  return value_->get<bool>();
}

std::int64_t JsonNode::integer(std::int64_t low, std::int64_t high) const {
  const bool fits = value_->is_number_unsigned()
                        ? value_->get<std::uint64_t>() <= static_cast<std::uint64_t>(INT64_MAX)
                        : value_->is_number_integer();
  if (!fits || value_->get<std::int64_t>() < low || value_->get<std::int64_t>() > high)
    refuse(fmt::format("be an integer in {}..{}", low, high));
  return value_->get<std::int64_t>();
}

void JsonNode::only(std::initializer_list<std::string_view> keys) const {
  if (!is_object()) refuse("be an object");
  for (const auto& item : value_->items())
    if (std::find(keys.begin(), keys.end(), item.key()) == keys.end())
      (*this)[item.key()].refuse("be absent (lectern does not know this setting)");
}

void JsonNode::refuse(const std::string& rule) const {
  fail<IoError>(fmt::format("{}: {} must {}, got {}", *file_,
                            path_.empty() ? "the document" : path_, rule, describe(*value_)));
}

}  // namespace lectern
