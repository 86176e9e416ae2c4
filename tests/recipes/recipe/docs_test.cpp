// docs/recipes.md has every key of a recipe in tables. They are those of the records' descriptions:
//   LECTERN_UPDATE_DOCS=1 build/tests/recipes.recipe.docs_test       writes them anew
#include "core/io/file.h"
#include "recipes/recipe/recipe.h"
#include "tests/testing.h"

#include <fmt/ranges.h>

#include <array>
#include <bit>
#include <cstdlib>

namespace lectern {
namespace {

std::string code(const std::string& text) { return "`" + text + "`"; }
std::string in_quotes(const std::string& text) { return code("\"" + text + "\""); }

/// Powers of two from 2^16 on and powers of ten from 10^6 on as such.
template <typename T>
std::string number(T value) {
  if constexpr (std::is_integral_v<T>) {
    const auto power = [](int base, int exponent) {
      static const std::array digits = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
      std::string out = std::to_string(base);
      for (const char digit : std::to_string(exponent))
        out += digits[static_cast<std::size_t>(digit - '0')];
      return out;
    };
    if (value >= 1 << 16 && std::has_single_bit(static_cast<std::uint64_t>(value)))
      return power(2, std::countr_zero(static_cast<std::uint64_t>(value)));
    T ten = 1'000'000;
    for (int exponent = 6; exponent < 18; ++exponent, ten *= 10)
      if (ten == value) return power(10, exponent);
  }
  return fmt::format("{}", value);
}

template <typename T>
std::string range_of(const Range<T>& range) {
  const bool low = range.min != std::numeric_limits<T>::lowest();
  const bool high = range.max != std::numeric_limits<T>::max();
  if (low && high) return number(range.min) + ".." + number(range.max);
  if (low) return (range.above ? "> " : "≥ ") + number(range.min);
  return "";
}

/// The middle columns of a row, by what kind of value it is.
struct Values {
  const Field& field;

  std::string operator()(const bool*) const { return "boolean"; }
  std::string operator()(const std::int64_t*) const { return range_of(field.integers); }
  std::string operator()(const double*) const { return range_of(field.numbers); }
  std::string operator()(const std::string*) const {
    std::vector<std::string> out;
    for (const std::string& choice : field.choices) out.push_back(in_quotes(choice));
    return fmt::format("{}", fmt::join(out, ", "));
  }
  std::string list(const std::string& range) const {
    return "list" + (range.empty() ? "" : ", each " + range);
  }
  std::string operator()(const std::vector<std::string>*) const { return "list"; }
  std::string operator()(const std::vector<std::int64_t>*) const {
    return list(range_of(field.integers));
  }
  std::string operator()(const std::vector<double>*) const { return list(range_of(field.numbers)); }
  std::string operator()(const std::array<double, 2>*) const {
    return "two numbers, " + range_of(field.numbers);
  }
  std::string operator()(const std::array<std::int64_t, 2>*) const {
    return "two numbers, " + range_of(field.integers);
  }
};

struct Default {
  std::string operator()(const bool* value) const { return *value ? "true" : "false"; }
  std::string operator()(const std::int64_t* value) const { return fmt::format("{}", *value); }
  std::string operator()(const double* value) const { return fmt::format("{}", *value); }
  std::string operator()(const std::string* value) const {
    std::string text = *value;
    if (const auto at = text.find('\n'); at != std::string::npos) text.replace(at, 1, "\\n");
    return in_quotes(text);
  }
  std::string operator()(const std::vector<std::string>* values) const {
    return code(fmt::format("{}", *values));
  }
  template <typename List>
  std::string operator()(const List* values) const {
    return code(fmt::format("[{}]", fmt::join(*values, ", ")));
  }
};

/// Rows "| `key` | unit, values | default | meaning |"; a key that comes again is left out.
class DocsTable final : public FieldVisitor {
 public:
  explicit DocsTable(std::string prefix = "") : prefix_(std::move(prefix)) {}

  void visit(const Field& field) override {
    const std::string start = "| " + code(prefix_ + std::string(field.key)) + " | ";
    if (text_.find(start) != std::string::npos) return;
    std::string values(field.note.unit);
    if (const std::string more = std::visit(Values{field}, field.value); !more.empty())
      values += (values.empty() ? "" : ", ") + more;
    std::string otherwise(field.note.otherwise);
    if (otherwise.empty())
      otherwise = field.note.required ? "required" : std::visit(Default{}, field.value);
    text_ += fmt::format("{}{} | {} | {} |\n", start, values, otherwise, field.note.meaning);
    EXPECT_FALSE(field.note.meaning.empty()) << prefix_ << field.key << " has no meaning";
  }
  void prefix(std::string prefix) { prefix_ = std::move(prefix); }
  const std::string& text() const { return text_; }

 private:
  std::string prefix_, text_;
};

template <typename Record, typename... More>
std::string rows(Record record, const More&... more) {
  DocsTable table;
  describe(record, table, more...);
  return table.text();
}

/// Reads a level, and passes all fields on.
class AtLevel final : public FieldVisitor {
 public:
  AtLevel(FieldVisitor& next, std::string level) : next_(next), level_(std::move(level)) {}
  void visit(const Field& field) override {
    if (field.key == "level") *std::get<std::string*>(field.value) = level_;
    next_.visit(field);
  }

 private:
  FieldVisitor& next_;
  std::string level_;
};

/// Between them regions and pages have all keys of a kind.
std::string source_rows() {
  DocsTable table;
  for (const std::string& kind : source_kinds())
    for (const char* level : {"region", "page"}) {
      SourceRecipe source;
      source.kind = kind;
      AtLevel fields(table, level);
      describe(source, fields, DataRecipe{});
    }
  return table.text();
}

std::string checkpoint_and_evaluation_rows() {
  DocsTable table("checkpoint.");
  CheckpointRecipe checkpoint;
  describe(checkpoint, table);
  table.prefix("evaluation.");
  EvaluationRecipe evaluation;
  describe(evaluation, table);
  return table.text();
}

/// File, heading and rows of every table.
struct Table {
  const char *file, *heading;
  std::string rows;
};
std::vector<Table> tables() {
  const char* recipes = "docs/recipes.md";
  return {{recipes, "### top level\n", rows(Recipe{})},
          {recipes, "### [mesh]\n", rows(MeshRecipe{})},
          {recipes, "### [model]\n", rows(ModelRecipe{})},
          {recipes, "### [data]\n", rows(DataRecipe{}, false)},
          {recipes, "### [[data.sources]]", source_rows()},
          {recipes, "### [[curriculum]]\n", rows(CurriculumRecipe{}, DataRecipe{}, std::size_t{0})},
          {recipes, "### [view]\n", rows(ViewRecipe{})},
          {recipes, "### [lora]", rows(LoraRecipe{})},
          {recipes, "### [optimizer]", rows(OptimizerRecipe{})},
          {recipes, "### [batch]\n", rows(BatchRecipe{})},
          {recipes, "### [moe]", rows(MoeRecipe{})},
          {recipes, "### [checkpoint], [evaluation]\n", checkpoint_and_evaluation_rows()},
          {recipes, "### [encoder_cache]\n", rows(EncoderCacheRecipe{})},
          {recipes, "### [log]\n", rows(LogRecipe{})},
          {"docs/mhc.md", "## Settings\n", rows(ResidualConfig{})}};
}

TEST(RecipeDocs, TablesAreThoseOfTheDescriptions) {
  const std::string rule = "|---|---|---|---|\n";
  for (const Table& table : tables()) {
    SCOPED_TRACE(fmt::format("{}: {}", table.file, table.heading));
    const auto path = testing::source_folder() / table.file;
    std::string text = read_file(path);
    const auto heading = text.find(table.heading);
    ASSERT_NE(heading, std::string::npos);
    const auto start = text.find(rule, heading) + rule.size();
    const auto end = text.find("\n\n", start) + 1;
    ASSERT_LT(start, end);
    if (text.substr(start, end - start) == table.rows) continue;
    if (std::getenv("LECTERN_UPDATE_DOCS")) {
      write_file(path, text.replace(start, end - start, table.rows));
      continue;
    }
    EXPECT_EQ(text.substr(start, end - start), table.rows)
        << "LECTERN_UPDATE_DOCS=1 build/tests/recipes.recipe.docs_test writes the table anew";
  }
}

}  // namespace
}  // namespace lectern
