// Reading a record (core/io/record.h) from a table of a configuration file.
#pragma once

#include "core/io/record.h"
#include "recipes/config/toml_config.h"

namespace lectern {

/// Reads each field from the table; the value that the record has is the default.
class TableFields final : public FieldVisitor {
 public:
  explicit TableFields(ConfigReader& table) : table_(table) {}
  void visit(const Field& field) override;

 private:
  ConfigReader& table_;
};

/// The record in a table; `defaults` for what is not there. `more` goes to describe().
template <typename Record, typename... More>
Record read_record(ConfigReader& table, Record defaults, const More&... more) {
  TableFields fields(table);
  describe(defaults, fields, more...);
  return defaults;
}

}  // namespace lectern
