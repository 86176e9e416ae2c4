// Checked reading of a JSON object: every complaint names file and field, what was found and what
// was expected.
#pragma once

#include "core/error.h"
#include "core/io/record.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace lectern {

/// A view of one object: the JSON document must outlive it. All accessors throw ConfigError
/// "<where>.<field>: must be ..., got ...". A field that is null is absent.
class Fields {
 public:
  /// `where` names the file, or the file and the path to the object.
  Fields(const nlohmann::json& object, std::string where);

  bool has(const char* field) const;
  /// Throws when the field is not there.
  void required(const char* field) const;
  /// An integer in [low, high]. A fallback outside of it says that the field is required.
  std::int64_t size(const char* field, std::int64_t fallback, std::int64_t low = 1,
                    std::int64_t high = std::int64_t{1} << 31) const;
  double number(const char* field, double fallback, double low, double high) const;
  bool boolean(const char* field, bool fallback) const;
  std::string text(const char* field, const std::string& fallback) const;
  std::string choice(const char* field, const std::string& fallback,
                     const std::vector<std::string>& words) const;
  /// A list of at most 4096 integers from `low` to 2^31.
  std::vector<std::int64_t> sizes(const char* field, std::vector<std::int64_t> fallback,
                                  std::int64_t low) const;
  /// The objects of a list, in order; none when there is no such field.
  std::vector<Fields> objects(const char* field) const;
  /// A list of strings, empty when there is no such field.
  std::vector<std::string> texts(const char* field) const;
  /// A field that may only have one value, because there is no other behaviour.
  void only(const char* field, const nlohmann::json& expected) const;
  /// A member that must be there and be an object.
  Fields object(const char* field) const;

  const nlohmann::json& raw(const char* field) const;
  const std::string& where() const { return where_; }

  /// From now on remembers which members were asked for, here and in the objects below.
  void watch();
  /// Members that are there, are not null and that nobody asked for since watch(); none without.
  std::vector<std::string> unread() const;

 private:
  using Names = std::set<std::string, std::less<>>;
  void asked(const char* field) const;
  Fields below(const nlohmann::json& object, std::string where) const;

  const nlohmann::json& object_;
  std::string where_;
  std::shared_ptr<Names> asked_;  // shared with copies, which read the same object
};

/// Runs `read` on a file of data, in which a field that does not fit is an IoError, not a
/// ConfigError.
template <typename Read>
auto read_data_file(Read&& read) {
  try {
    return read();
  } catch (const ConfigError& error) {
    throw IoError(error.what());
  }
}

/// Reads a record (core/io/record.h); the value that a field has is its fallback.
class ReadFields final : public FieldVisitor {
 public:
  explicit ReadFields(const Fields& in) : in_(in) {}
  void visit(const Field& field) override;

 private:
  const Fields& in_;
};

/// The record in an object.
template <typename Record>
Record read_record(const Fields& in, Record defaults = {}) {
  ReadFields read(in);
  describe(defaults, read);
  return defaults;
}

/// Writes a record into an object.
class WriteFields final : public FieldVisitor {
 public:
  explicit WriteFields(nlohmann::json& out) : out_(out) {}
  void visit(const Field& field) override;

 private:
  nlohmann::json& out_;
};

}  // namespace lectern
