#include "data/tokenizer/tokenizer.h"

#include "core/io/file.h"
#include "data/text/utf8.h"
#include "data/tokenizer/train.h"
#include "recipes/parity/tokenizer.h"
#include "tests/testing.h"

#include <nlohmann/json.hpp>

#include <atomic>
#include <thread>

namespace lectern {
namespace {

using nlohmann::json;
using testing::fixture;
using testing::throws_with;

json read_json(const std::filesystem::path& path) {
  return parse_json(read_file(path), path.string());
}

/// A tokenizer.json with the byte alphabet as ids 0..255 and the merges h+e and he+l.
json small() {
  json vocab;
  for (int byte = 0; byte < 256; ++byte) vocab[byte_symbols()[byte]] = byte;
  vocab["he"] = 256;
  vocab["hel"] = 257;
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", json::parse(R"({"type": "ByteLevel", "add_prefix_space": false,
                                            "trim_offsets": true, "use_regex": true})")},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", ""},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"vocab", vocab},
            {"merges", {"h e", "he l"}}}}};
}

json added(int id, const std::string& content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", false}};
}

json split(const std::string& pattern) {
  return json::array({{{"type", "Split"},
                       {"pattern", {{"Regex", pattern}}},
                       {"behavior", "Isolated"},
                       {"invert", false}},
                      {{"type", "ByteLevel"},
                       {"add_prefix_space", false},
                       {"trim_offsets", true},
                       {"use_regex", false}}});
}

Tokenizer make(const json& document) { return Tokenizer::from_json(document.dump(), "x.json"); }

using Ids = std::vector<std::int32_t>;

// ----- the `tokenizers` library as the reference -----

class Fixture : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Styles, Fixture, ::testing::Values("gpt2", "qwen2", "deepseek"));

TEST_P(Fixture, EqualsTokenizersLibrary) {
  const auto folder = fixture("tokenizer/" + GetParam());
  ASSERT_GT(read_json(folder / "cases.json")["cases"].size(), 100u);
  const ParityReport report = parity_tokenizer(folder);
  ASSERT_EQ(report.rows.size(), 6u);
  for (const ParityRow& row : report.rows) EXPECT_TRUE(row.passed) << row.what << ": " << row.note;
}

TEST_P(Fixture, KnowsItsTokens) {
  const auto folder = fixture("tokenizer/" + GetParam());
  const Tokenizer tokenizer = Tokenizer::load(folder / "tokenizer.json");
  const json cases = read_json(folder / "cases.json");
  EXPECT_EQ(tokenizer.vocab_size(), cases["vocab_size"]);
  EXPECT_EQ(tokenizer.id_limit(), cases["vocab_size"]);
  for (const std::string token : cases["special"])
    EXPECT_TRUE(tokenizer.is_special(tokenizer.token_to_id(token).value())) << token;
  for (const std::string token : cases["added_not_special"])
    EXPECT_FALSE(tokenizer.is_special(tokenizer.token_to_id(token).value())) << token;
  for (std::int32_t id = 0; id < tokenizer.id_limit(); ++id)
    EXPECT_EQ(tokenizer.token_to_id(tokenizer.id_to_token(id).value()), id);
  EXPECT_FALSE(tokenizer.token_to_id("no such token"));
  EXPECT_FALSE(tokenizer.id_to_token(-1));
  EXPECT_FALSE(tokenizer.id_to_token(static_cast<std::int32_t>(tokenizer.id_limit())));
  EXPECT_FALSE(tokenizer.is_special(-1));
}

TEST_P(Fixture, SavesWhatItLoaded) {
  const auto path = fixture("tokenizer/" + GetParam()) / "tokenizer.json";
  const testing::TemporaryFolder folder;
  Tokenizer::load(path).save(folder.path() / "copy.json");
  EXPECT_EQ(read_file(path), read_file(folder.path() / "copy.json"));
}

TEST_P(Fixture, EncodesTheSameFromManyThreads) {
  const auto folder = fixture("tokenizer/" + GetParam());
  const Tokenizer tokenizer = Tokenizer::load(folder / "tokenizer.json");
  const json document = read_json(folder / "cases.json");
  const json& cases = document["cases"];
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int round = 0; round < 5; ++round)
        for (const json& one : cases)
          wrong +=
              tokenizer.encode(one["text"].get_ref<const std::string&>()) != one["ids"].get<Ids>();
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(ParityTokenizer, NoticesDifferences) {
  const testing::TemporaryFolder folder;
  const auto source = fixture("tokenizer/gpt2");
  std::filesystem::copy(source / "tokenizer.json", folder.path() / "tokenizer.json");
  json cases = read_json(source / "cases.json");
  cases["cases"][11]["ids"][0] = 1;
  cases["cases"][12]["pieces"] = json::array({"x"});
  cases["prefix_decodes"][0]["decoded"] = "x";
  write_file(folder.path() / "cases.json", cases.dump());
  const ParityReport report = parity_tokenizer(folder.path());
  EXPECT_FALSE(report.passed());
  for (const ParityRow& row : report.rows)
    EXPECT_EQ(row.difference, row.what == "vocab_size" ? 0.0 : 1.0) << row.what;
  cases["cases"][3]["ids"][0] = "one";
  write_file(folder.path() / "cases.json", cases.dump());
  EXPECT_TRUE(throws_with([&] { parity_tokenizer(folder.path()); },
                          {"cases.json: cases[3].ids[0] must be an integer"}));
}

/// The first difference of two lists of strings, or nothing.
std::string first_difference(const std::vector<std::string>& got, const json& want) {
  for (std::size_t i = 0; i < std::max(got.size(), want.size()); ++i) {
    const json a = i < got.size() ? json(got[i]) : json(), b = i < want.size() ? want[i] : json();
    if (a != b) return fmt::format("{}: got {}, want {}", i, a.dump(), b.dump());
  }
  return "";
}

TEST(TokenizerTrain, EqualsTokenizersLibrary) {
  std::vector<std::string> texts;
  for (const char* style : {"gpt2", "qwen2", "deepseek"}) {
    const json cases = read_json(fixture("tokenizer") / style / "cases.json");
    for (const json& one : cases["cases"]) texts.push_back(one["text"]);
  }
  const json runs = read_json(fixture("tokenizer_train") / "golden.json");
  ASSERT_EQ(runs.size(), 3u);
  for (const json& run : runs) {
    SCOPED_TRACE(run["style"]);
    TrainOptions options;
    options.style = tokenizer_style(run["style"].get<std::string>());
    options.vocab_size = run["vocab_size"];
    options.min_frequency = run["min_frequency"];
    options.special_tokens = run["special_tokens"].get<std::vector<std::string>>();
    const Tokenizer tokenizer = train_tokenizer(texts, options);
    std::vector<std::string> tokens;
    for (std::int32_t id = 0; id < tokenizer.id_limit(); ++id)
      tokens.push_back(tokenizer.id_to_token(id).value());
    EXPECT_EQ(first_difference(tokens, run["tokens"]), "");
    EXPECT_EQ(first_difference(json::parse(tokenizer.json())["model"]["merges"], run["merges"]),
              "");
  }
}

// ----- training -----

TEST(TokenizerTrain, PutsSpecialTokensFirst) {
  const Tokenizer tokenizer = train_tokenizer(std::vector<std::string>{"a text a text"}, {});
  EXPECT_EQ(tokenizer.token_to_id("<｜begin▁of▁sentence｜>"), 0);
  EXPECT_EQ(tokenizer.token_to_id("<｜end▁of▁sentence｜>"), 1);
  EXPECT_EQ(tokenizer.token_to_id("<｜▁pad▁｜>"), 2);
  EXPECT_EQ(tokenizer.token_to_id("<image>"), 3);
  EXPECT_EQ(tokenizer.token_to_id("<|Assistant|>"), 10);
  EXPECT_EQ(tokenizer.token_to_id("!"), 11);
  EXPECT_TRUE(tokenizer.is_special(10));
  EXPECT_FALSE(tokenizer.is_special(11));
  const std::string text = "<image>\ntext \xE6\x96\x87 <|User|>";
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text), false), text);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text), true), "\ntext \xE6\x96\x87 ");
}

TEST(TokenizerTrain, StopsWhereAsked) {
  TrainOptions options;
  options.special_tokens = {};
  options.vocab_size = 257;
  const std::vector<std::string> texts{"ab ab ab", "ac"};
  Tokenizer tokenizer = train_tokenizer(texts, options);
  EXPECT_EQ(tokenizer.vocab_size(), 257);
  EXPECT_EQ(tokenizer.id_to_token(256), "ab");  // 3 times; " a" comes 2 times
  options.vocab_size = 1000;
  tokenizer = train_tokenizer(texts, options);
  EXPECT_EQ(tokenizer.vocab_size(), 258);
  EXPECT_EQ(tokenizer.id_to_token(257),
            "\xC4\xA0"
            "ab");
  EXPECT_EQ(train_tokenizer(std::vector<std::string>{}, options).vocab_size(), 256);
}

TEST(TokenizerTrain, RefusesUnusableOptions) {
  const auto train = [](TrainOptions options) {
    return [options] { TokenizerTrainer trainer(options); };
  };
  EXPECT_TRUE(throws_with(train({.vocab_size = 266}), {"vocab_size must be in 267", "got 266"}));
  EXPECT_TRUE(throws_with(train({.vocab_size = -1}), {"vocab_size", "got -1"}));
  EXPECT_TRUE(throws_with(train({.vocab_size = INT64_MAX}), {"vocab_size"}));
  EXPECT_TRUE(throws_with(train({.min_frequency = -1}), {"min_frequency", "got -1"}));
  for (const std::vector<std::string>& special :
       {std::vector<std::string>{""}, {"a", "b", "a"}, {"<x>", "a"}, {"<x>", "\xFF"}})
    EXPECT_TRUE(throws_with(train({.special_tokens = special}), {"special tokens must be"}));
  EXPECT_TRUE(throws_with([] { tokenizer_style("bert"); }, {"must be deepseek", "\"bert\""}));
}

// ----- settings -----

TEST(Tokenizer, MergesByRank) {
  const Tokenizer tokenizer = make(small());
  EXPECT_EQ(tokenizer.encode("hello he"), (Ids{257, 'l', 'o', ' ', 256}));
  EXPECT_EQ(tokenizer.encode(""), Ids{});
  json document = small();
  document["model"]["merges"] = json::array({json::array({"h", "e"}), json::array({"he", "l"})});
  EXPECT_EQ(make(document).encode("hello"), (Ids{257, 'l', 'o'}));
  document["model"]["vocab"]["hello"] = 300;  // a gap before it
  document["model"]["ignore_merges"] = true;
  EXPECT_EQ(make(document).encode("hello"), Ids{300});
  EXPECT_EQ(make(document).id_limit(), 301);
  EXPECT_EQ(make(document).vocab_size(), 259);
  EXPECT_FALSE(make(document).id_to_token(299));
}

TEST(Tokenizer, MergesLongPieces) {
  const std::string text(300000, 'h');
  json document = small();
  document["model"]["vocab"]["hh"] = 258;
  document["model"]["merges"].push_back("h h");
  EXPECT_EQ(make(document).encode(text), Ids(150000, 258));
}

TEST(Tokenizer, DecodesAsRustDoes) {
  const Tokenizer tokenizer = make(small());
  const std::string replacement = "\xEF\xBF\xBD";
  const auto decoded = [&](const std::string& bytes) {
    Ids ids;
    for (const char byte : bytes) ids.push_back(static_cast<unsigned char>(byte));
    return tokenizer.decode(ids);
  };
  EXPECT_EQ(decoded("a\xF0\x9F\x99\x82"), "a\xF0\x9F\x99\x82");
  EXPECT_EQ(decoded("\xF0\x9F\x99"), replacement);  // one truncated character
  EXPECT_EQ(decoded("\xF0\x9F\x99"
                    "a"),
            replacement + "a");
  EXPECT_EQ(decoded("\x99\x82"), replacement + replacement);                    // two stray bytes
  EXPECT_EQ(decoded("\xC0\x80"), replacement + replacement);                    // overlong
  EXPECT_EQ(decoded("\xED\xA0\x80"), replacement + replacement + replacement);  // surrogate
  EXPECT_EQ(decoded("\xF4\x90\x80\x80"), replacement + replacement + replacement + replacement);
  EXPECT_EQ(decoded("\xE1\x80\xE1\x80\x80"), replacement + "\xE1\x80\x80");
  EXPECT_EQ(tokenizer.decode(Ids{'a', -1, 100000, INT32_MIN, INT32_MAX, 'b'}), "ab");
}

TEST(Tokenizer, RepairsTextThatIsNotUtf8) {
  const Tokenizer tokenizer = make(small());
  EXPECT_EQ(tokenizer.encode("a\xFFz"), tokenizer.encode("a\xEF\xBF\xBDz"));
  EXPECT_EQ(tokenizer.encode("\xE6\x96"), tokenizer.encode("\xEF\xBF\xBD"));
}

TEST(Tokenizer, HonoursAddedTokenFlags) {
  const auto encoded = [](const char* flag, const std::string& text) {
    json document = small();
    document["added_tokens"].push_back(added(300, "<x>"));
    document["added_tokens"].push_back(added(301, "<x>>"));
    if (*flag != 0) document["added_tokens"][0][flag] = true;
    return make(document).encode(text);
  };
  EXPECT_EQ(encoded("", "a<x>b"), (Ids{'a', 300, 'b'}));
  EXPECT_EQ(encoded("", "<x>>>"), (Ids{301, '>'}));  // the longest counts
  EXPECT_EQ(encoded("", "<x <"), (Ids{'<', 'x', ' ', '<'}));
  EXPECT_EQ(encoded("lstrip", "a \t<x> b"), (Ids{'a', 300, ' ', 'b'}));
  EXPECT_EQ(encoded("rstrip", "a <x> \xE3\x80\x80 b"), (Ids{'a', ' ', 300, 'b'}));
  EXPECT_EQ(encoded("single_word", "a<x> <x>"), (Ids{'a', '<', 'x', '>', ' ', 300}));
  EXPECT_EQ(encoded("single_word", "\xC3\xA9<x>"), (Ids{0xC3, 0xA9, '<', 'x', '>'}));
}

TEST(Tokenizer, MatchesNormalizedTokensInNormalizedText) {
  json document = small();
  document["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}}}};
  document["added_tokens"] = json::array({added(300, "e\xCC\x81")});
  EXPECT_EQ(make(document).encode("\xC3\xA9 e\xCC\x81"), (Ids{0xC3, 0xA9, ' ', 300}));
  document["added_tokens"][0]["normalized"] = true;
  EXPECT_EQ(make(document).encode("\xC3\xA9 e\xCC\x81"), (Ids{300, ' ', 300}));
}

TEST(Tokenizer, AppliesTemplateOnlyWhenAsked) {
  json document = small();
  document["added_tokens"] = json::array({added(300, "<s>"), added(301, "</s>")});
  document["post_processor"] = json::parse(R"({"type": "Sequence", "processors": [
      {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
      {"type": "TemplateProcessing", "pair": [], "single": [
        {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "end", "type_id": 0}}],
       "special_tokens": {"<s>": {"id": "<s>", "ids": [300], "tokens": ["<s>"]},
                          "end": {"id": "end", "ids": [301, 300], "tokens": ["</s>", "<s>"]}}}]})");
  EXPECT_EQ(make(document).encode("a", true), (Ids{300, 'a', 301, 300}));
  EXPECT_EQ(make(document).encode("a"), Ids{'a'});
}

TEST(Tokenizer, DropsOrReplacesBytesWithoutSymbol) {
  json document = small();
  document["model"]["vocab"].erase("z");
  EXPECT_EQ(make(document).encode("azb"), (Ids{'a', 'b'}));
  document["model"]["unk_token"] = "b";
  EXPECT_EQ(make(document).encode("azb"), (Ids{'a', 'b', 'b'}));
}

TEST(Tokenizer, PreTokenizesInTheByteAlphabet) {
  EXPECT_EQ(make(small()).pre_tokenize("a b\xC3\xA9"),
            (std::vector<std::string>{"a",
                                      "\xC4\xA0"
                                      "b\xC3\x83\xC2\xA9"}));
}

// ----- hostile files -----

struct Hostile {
  const char* pointer;
  const char* value;
  std::vector<std::string_view> message;
};

TEST(TokenizerJson, RefusesBadFieldsByName) {
  const std::vector<Hostile> all = {
      {"/model", "7", {"x.json: model must be an object", "got 7"}},
      {"/model/type", "\"Unigram\"", {"model.type must be BPE", "Unigram"}},
      {"/model/vocab", "[]", {"model.vocab must be an object"}},
      {"/model/vocab/a", "-1", {"model.vocab.a must be an integer in 0..", "got -1"}},
      {"/model/vocab/a", "1.5", {"model.vocab.a", "got 1.5"}},
      {"/model/vocab/a", "\"1\"", {"model.vocab.a", "got \"1\""}},
      {"/model/vocab/a", "4000000000", {"model.vocab.a", "4000000000"}},
      {"/model/vocab/a", "18446744073709551615", {"model.vocab.a"}},
      {"/model/vocab/a", "1e300", {"model.vocab.a"}},
      {"/model/vocab/a", "98", {"model.vocab must give every token an id of its own", "98"}},
      {"/model/merges", "null", {"model.merges must be an array, got null"}},
      {"/model/merges/1", "\"he\"", {"model.merges[1] must be two tokens"}},
      {"/model/merges/1", "\"h e l\"", {"model.merges[1] must be two tokens"}},
      {"/model/merges/1", "[\"he\"]", {"model.merges[1] must be a string or an array of two"}},
      {"/model/merges/1", "[\"he\", 4]", {"model.merges[1]"}},
      {"/model/merges/1", "\"he xyz\"", {"model.merges[1] must name tokens", "\"xyz\""}},
      {"/model/merges/1", "\"l l\"", {"model.merges[1] must name tokens", "\"ll\""}},
      {"/model/dropout", "0.1", {"model.dropout must be null or 0, got 0.1"}},
      {"/model/unk_token", "\"nope\"", {"model.unk_token must be a token"}},
      {"/model/continuing_subword_prefix", "\"##\"", {"model.continuing_subword_prefix"}},
      {"/model/colour", "1", {"model.colour must be absent"}},
      {"/truncation", "5", {"truncation must be an object or null, got 5"}},
      {"/padding", "true", {"padding must be an object or null"}},
      {"/normalizer", "{\"type\": \"Lowercase\"}", {"normalizer.type must be NFC", "Lowercase"}},
      {"/normalizer", "{}", {"normalizer.type must be a string, got null"}},
      {"/pre_tokenizer", "null", {"pre_tokenizer must be an object"}},
      {"/pre_tokenizer/type", "\"Metaspace\"", {"pre_tokenizer.type", "Metaspace"}},
      {"/pre_tokenizer", R"({"type": "Sequence", "pretokenizers": []})", {"end in ByteLevel"}},
      {"/pre_tokenizer", R"({"type": "Digits", "individual_digits": true})", {"end in ByteLevel"}},
      {"/decoder", "null", {"decoder must be an object"}},
      {"/decoder/type", "\"WordPiece\"", {"decoder.type must be ByteLevel"}},
      {"/post_processor", R"({"type": "BertProcessing"})", {"post_processor.type"}},
      {"/added_tokens", "3", {"added_tokens must be an array"}},
      {"/added_tokens/0", "{}", {"added_tokens[0].id must be an integer"}},
      {"/added_tokens/0", R"({"id": 2000000000})", {"added_tokens[0].id", "2000000000"}},
      {"/surprise", "1", {"surprise must be absent"}},
  };
  for (const Hostile& one : all) {
    SCOPED_TRACE(std::string(one.pointer) + " = " + one.value);
    json document = small();
    document[json::json_pointer(one.pointer)] = json::parse(one.value);
    try {
      make(document);
      ADD_FAILURE() << "was not refused";
    } catch (const IoError& error) {
      for (const std::string_view part : one.message)
        EXPECT_NE(std::string_view(error.what()).find(part), std::string_view::npos)
            << error.what();
    }
  }
}

TEST(TokenizerJson, RefusesConflictingAddedTokens) {
  json document = small();
  document["added_tokens"] = json::array({added(5, "<x>")});
  EXPECT_TRUE(throws_with([&] { make(document); }, {"added_tokens[0].id", "id of its own"}));
  document["added_tokens"] = json::array({added(300, "<x>"), added(301, "<x>")});
  EXPECT_TRUE(throws_with([&] { make(document); }, {"added_tokens[1].id must be 300", "got 301"}));
  document["added_tokens"] = json::array({added(300, "")});
  EXPECT_TRUE(throws_with([&] { make(document); }, {"added_tokens[0].content", "empty"}));
  document["added_tokens"] = json::array({added('a', "a")});
  EXPECT_EQ(make(document).vocab_size(), 258);
}

TEST(TokenizerJson, RefusesBadRegularExpressions) {
  const auto refused = [](const std::string& pattern, std::string_view why) {
    json document = small();
    document["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", split(pattern)}};
    return throws_with([&] { make(document); },
                       {"x.json: pre_tokenizer.pretokenizers[0].pattern.Regex must be", why});
  };
  EXPECT_TRUE(refused("(", "missing closing parenthesis"));
  EXPECT_TRUE(refused("a\\", "backslash"));
  EXPECT_TRUE(refused("[a", "missing terminating ]"));
  EXPECT_TRUE(refused("[a-z&&[^e]]", "intersection"));
  EXPECT_TRUE(refused("[ab[cd]]", "class inside a class"));
  EXPECT_TRUE(refused("(?m:a.b)", "inline option"));
  EXPECT_TRUE(refused("a{1,2}+", "interval"));
  EXPECT_TRUE(refused("(*ACCEPT)", "control verb"));
  EXPECT_TRUE(refused("\\p{Nonsense}", "unknown"));
  EXPECT_TRUE(refused("\\C", "\\C"));
  EXPECT_TRUE(refused(std::string(1000, '(') + std::string(1000, ')'), "nested"));
  EXPECT_TRUE(refused(std::string(100000, 'a'), "at most"));
}

TEST(TokenizerJson, GivesUpOnRunawayRegularExpressions) {
  json document = small();
  document["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", split("(a|aa|b?a)+[yz]")}};
  const Tokenizer tokenizer = make(document);
  EXPECT_TRUE(throws_with([&] { tokenizer.encode(std::string(200, 'a')); },
                          {"regular expression: gave up at byte 0 of 200", "limit"}));
  EXPECT_EQ(tokenizer.encode("b"), Ids{'b'});  // and the tokenizer lives on
}

TEST(TokenizerJson, RefusesBrokenFiles) {
  const std::string whole = read_file(fixture("tokenizer/deepseek") / "tokenizer.json");
  for (std::size_t size = 0; size < whole.size(); size += 1 + size / 7)
    EXPECT_TRUE(throws_with([&] { Tokenizer::from_json(whole.substr(0, size), "x.json"); },
                            {"tokenizer x.json: not valid JSON"}))
        << size;
  for (const char* text : {"[]", "null", "7", "\"text\""})
    EXPECT_TRUE(throws_with([&] { Tokenizer::from_json(text, "x.json"); },
                            {"x.json: the document must be an object"}));
  EXPECT_TRUE(
      throws_with([&] { Tokenizer::from_json("{}", "x.json"); }, {"x.json: pre_tokenizer"}));
  EXPECT_TRUE(throws_with([&] { Tokenizer::from_json("{\"model\": \"\xFF\"}", "x.json"); },
                          {"not valid JSON"}));
  for (const char* open : {"[", "{\"a\":"}) {
    std::string deep;
    for (int i = 0; i < 100000; ++i) deep += open;
    EXPECT_TRUE(throws_with([&] { Tokenizer::from_json(deep, "x.json"); }, {"nest at most"}));
  }
  EXPECT_TRUE(
      throws_with([] { Tokenizer::load("/no/such/tokenizer.json"); }, {"/no/such/tokenizer.json"}));
}

}  // namespace
}  // namespace lectern
