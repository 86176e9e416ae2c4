// A value of a JSON file together with where it stands, so that every complaint names file and
// field: "tokenizer.json: model.merges[3] must be a string, got 7".
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace lectern {

/// A view: the JSON document and the file name must outlive it. All accessors throw IoError.
class JsonNode {
 public:
  JsonNode(const nlohmann::json& value, const std::string& file, std::string path = {})
      : value_(&value), file_(&file), path_(std::move(path)) {}

  const nlohmann::json& value() const { return *value_; }
  bool is_null() const { return value_->is_null(); }
  bool is_object() const { return value_->is_object(); }

  /// Member `key`; null when it is absent. The node must be an object.
  JsonNode operator[](std::string_view key) const;
  /// Element `index` of an array.
  JsonNode at(std::size_t index) const;
  /// Number of elements; the node must be an array.
  std::size_t size() const;

  const std::string& text() const;
  bool flag() const;
  bool flag_or(bool absent) const { return is_null() ? absent : flag(); }
  /// An integer in [low, high].
  std::int64_t integer(std::int64_t low, std::int64_t high) const;
  /// Refuses members other than `keys`: a setting that is not understood must not be ignored.
  void only(std::initializer_list<std::string_view> keys) const;

  /// Throws "<file>: <path> must <rule>, got <value>".
  [[noreturn]] void refuse(const std::string& rule) const;

 private:
  const nlohmann::json* value_;
  const std::string* file_;
  std::string path_;
};

}  // namespace lectern
