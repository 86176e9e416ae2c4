#include "data/samples/kinds.h"

#include "core/error.h"
#include "core/io/file.h"
#include "data/samples/cut.h"
#include "data/samples/drawn.h"
#include "data/samples/pairs.h"
#include "data/samples/text.h"
#include "tests/data/synthetic_pages.h"
#include "tests/data/text_sample.h"
#include "tests/testing.h"

#include <nlohmann/json.hpp>

#include <set>

namespace lectern {
namespace {

using testing::TemporaryFolder;
using testing::test_tokenizer;
using testing::throws_with;

/// Reads fields from JSON.
class JsonFields final : public FieldVisitor {
 public:
  explicit JsonFields(nlohmann::json values) : values_(std::move(values)) {}

  void visit(const Field& field) override {
    const auto found = values_.find(std::string(field.key));
    if (found != values_.end())
      std::visit([&](auto* out) { found->get_to(*out); }, field.value);
    else if (field.note.required)
      fail<ConfigError>(fmt::format("{} is required", field.key));
    FieldCheck("table").visit(field);
  }

 private:
  nlohmann::json values_;
};

class Kinds : public ::testing::Test {
 protected:
  void SetUp() override { testing::write_shards(folder_.path() / "shards", 1, 2); }

  std::shared_ptr<const SourceSettings> read(const std::string& kind, nlohmann::json values,
                                             const SourceDefaults& defaults) const {
    JsonFields fields(std::move(values));
    auto out = make_source_settings(kind);
    out->describe(fields, defaults);
    out->check([](std::string_view key, std::string_view message) {
      fail<ConfigError>(fmt::format("{} {}", key, message));
    });
    return out;
  }
  std::shared_ptr<const SourceSettings> read(const std::string& kind, nlohmann::json values) const {
    return read(kind, std::move(values),
                {.prompt = "<image>\nRead.", .ascii_only = true, .max_text_tokens = 640});
  }
  std::string shards() const { return (folder_.path() / "shards").string(); }

  TemporaryFolder folder_;
};

TEST_F(Kinds, EachIsReadFromItsTableAndOpened) {
  write_file(folder_.path() / "text.txt", testing::kEnglish);
  const std::map<std::string, nlohmann::json> tables{
      {"shards", {{"level", "word"}, {"shards", shards()}}},
      {"synthetic", {{"level", "line"}, {"text", {(folder_.path() / "text.txt").string()}}}},
      {"pairs", {{"shards", shards()}}},
      {"text", {{"shards", shards()}}}};
  const std::map<std::string, std::pair<std::string, std::int64_t>> expected{
      {"shards", {"word of " + shards(), 30}},
      {"synthetic", {"drawn line", std::int64_t{1} << 32}},
      {"pairs", {"pair of " + shards(), 2}},
      {"text", {"text of " + shards(), 2}}};
  OpenShards open;
  const std::vector<std::string> kinds = source_kinds();
  EXPECT_EQ(std::set<std::string>(kinds.begin(), kinds.end()).size(), kinds.size());
  ASSERT_EQ(kinds.size(), tables.size());
  for (const std::string& kind : kinds) {
    SCOPED_TRACE(kind);
    const auto source = read(kind, tables.at(kind))->open({test_tokenizer(), open, 5});
    EXPECT_EQ(source->describe(), expected.at(kind).first);
    EXPECT_EQ(source->count(), expected.at(kind).second);
  }
  EXPECT_TRUE(throws_with([&] { read("paint", {}); }, {"no kind of source \"paint\""}));
}

TEST_F(Kinds, TakeWhatTheDefaultsSayUnlessTheySayOtherwise) {
  const auto settings = read("shards", {{"level", "line"}, {"shards", "x"}, {"cut_width", 90}});
  const CutOptions& cut = dynamic_cast<const CutSettings&>(*settings).options;
  EXPECT_EQ(settings->label(), "line");
  EXPECT_EQ(cut.prompt, "<image>\nRead.");
  EXPECT_TRUE(cut.ascii_only);
  EXPECT_EQ(cut.max_response_tokens, 640);
  EXPECT_EQ(cut.cut_width, 90);
  const auto pairs = read("pairs", {{"shards", "x"}, {"max_text_tokens", 9}});
  EXPECT_EQ(dynamic_cast<const PairSettings&>(*pairs).options.max_response_tokens, 9);
  EXPECT_EQ(pairs->label(), "pairs");
  // Only regions have lines, only lines and regions are cut.
  EXPECT_EQ(dynamic_cast<const CutSettings&>(
                *read("shards", {{"level", "word"}, {"shards", "x"}, {"cut_width", 90}}))
                .options.cut_width,
            0);
  EXPECT_TRUE(throws_with([&] { read("shards", {{"level", "character"}}); }, {"level"}));
  const nlohmann::json none = nlohmann::json::array();
  EXPECT_TRUE(throws_with(
      [&] {
        read("synthetic", {{"level", "word"}, {"text", none}});
      },
      {"text must name a file or folder"}));
  EXPECT_TRUE(throws_with(
      [&] {
        read("synthetic",
             {{"level", "word"}, {"text", {"a.txt"}}, {"scripts", {"latin", "runes"}}});
      },
      {"scripts must be of", "got \"runes\""}));
  EXPECT_TRUE(throws_with([&] { read("text", nlohmann::json::object()); }, {"shards is required"}));
}

TEST_F(Kinds, DrawnTextDependsOnTheSeedOfItsSource) {
  write_file(folder_.path() / "text.txt", testing::kEnglish);
  const auto settings =
      read("synthetic", {{"level", "word"}, {"text", {(folder_.path() / "text.txt").string()}}});
  OpenShards open;
  const SampleOptions options;
  const auto key = [&](std::uint64_t seed) {
    return settings->open({test_tokenizer(), open, seed})->key({options, Draw{}});
  };
  EXPECT_EQ(key(1), key(1));
  EXPECT_NE(key(1), key(2));
}

TEST_F(Kinds, FoldersAreOpenedOnce) {
  OpenShards open;
  EXPECT_EQ(open.open(shards()), open.open(shards()));
}

}  // namespace
}  // namespace lectern
