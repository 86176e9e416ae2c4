#include "recipes/parity/tokenizer.h"

#include "core/io/file.h"
#include "data/json_node.h"
#include "data/tokenizer/tokenizer.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <limits>

namespace lectern {
namespace {

using nlohmann::json;

// Counts the cases of one row and remembers the first that differs.
class Row {
 public:
  explicit Row(std::string what) : what_(std::move(what)) {}

  void compare(const JsonNode& want, const json& got, const std::string& input) {
    ++cases_;
    if (want.value() == got) return;
    if (differing_++ == 0)
      note_ = fmt::format("{}: got {}, want {}", input, shown(got), shown(want.value()));
  }
  ParityRow result() const {
    std::string note = fmt::format("{} of {} cases differ", differing_, cases_);
    if (differing_ > 0) note += "; first " + note_;
    return {what_, static_cast<double>(differing_), 0.0, differing_ == 0, note};
  }

 private:
  static std::string shown(const json& value) {
    return value.dump(-1, ' ', false, json::error_handler_t::replace);
  }

  std::string what_, note_;
  std::int64_t cases_ = 0, differing_ = 0;
};

std::vector<std::int32_t> ids_of(const JsonNode& node) {
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < node.size(); ++i)
    ids.push_back(
        static_cast<std::int32_t>(node.at(i).integer(0, std::numeric_limits<std::int32_t>::max())));
  return ids;
}

}  // namespace

ParityReport parity_tokenizer(const std::filesystem::path& folder) {
  const Tokenizer tokenizer = Tokenizer::load(folder / "tokenizer.json");
  const std::string file = (folder / "cases.json").string();
  const json document = parse_json(read_file(file), file);
  const JsonNode root(document, file);

  Row size("vocab_size"), pieces("pieces"), ids("ids"), decoded("decoded");
  Row skipped("decoded_skip_special"), prefixes("prefix_decodes");
  size.compare(root["vocab_size"], tokenizer.vocab_size(), "vocab_size");
  const JsonNode cases = root["cases"];
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const JsonNode one = cases.at(i);
    const std::string& text = one["text"].text();
    const std::string input = "text " + one["text"].value().dump();
    const std::vector<std::int32_t> want_ids = ids_of(one["ids"]);
    pieces.compare(one["pieces"], tokenizer.pre_tokenize(text), input);
    ids.compare(one["ids"], tokenizer.encode(text), input);
    decoded.compare(one["decoded"], tokenizer.decode(want_ids, false), input);
    skipped.compare(one["decoded_skip_special"], tokenizer.decode(want_ids, true), input);
  }
  const JsonNode cuts = root["prefix_decodes"];
  for (std::size_t i = 0; i < cuts.size(); ++i) {
    const JsonNode one = cuts.at(i);
    prefixes.compare(one["decoded"], tokenizer.decode(ids_of(one["ids"]), false),
                     "ids " + one["ids"].value().dump());
  }
  ParityReport report;
  for (const Row* row : {&size, &pieces, &ids, &decoded, &skipped, &prefixes})
    report.rows.push_back(row->result());
  return report;
}

}  // namespace lectern
