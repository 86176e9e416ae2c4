#include "recipes/config/toml_config.h"

#include "core/random.h"
#include "tests/testing.h"

#include <bit>
#include <fstream>

namespace lectern {
namespace {

using testing::throws_with;

constexpr const char* kText = R"(steps = 10
name = "a \"b\" \\ \u00e9\n"
[optimizer]
learning_rate = 1e-4
betas = [0.9, 0.95]
[optimizer.extra]
on = true
)";

TEST(TomlConfig, ReadsValuesAndDefaults) {
  auto document = ConfigDocument::parse(kText, "r.toml");
  ConfigReader root = document.root();
  EXPECT_EQ(root.integer("steps", kRequired), 10);
  EXPECT_EQ(root.string("name", kRequired), "a \"b\" \\ \u00e9\n");
  EXPECT_EQ(root.integer("absent", 7), 7);
  ConfigReader optimizer = root.table("optimizer");
  EXPECT_EQ(optimizer.number("learning_rate", kRequired), 1e-4);
  EXPECT_EQ(optimizer.numbers("betas", kRequired), (std::vector<double>{0.9, 0.95}));
  EXPECT_EQ(optimizer.integers("list", std::vector<std::int64_t>{1, 2}).size(), 2u);
  EXPECT_TRUE(optimizer.table("extra").boolean("on", false));
  EXPECT_FALSE(root.table("missing").boolean("on", false));
  EXPECT_EQ(root.number("steps", kRequired), 10.0);  // an integer is a number
  root.finish();
}

TEST(TomlConfig, UnknownKeysNameTheNearestKnownOne) {
  const auto read = [](const std::string& text, const std::vector<std::string>& overrides = {}) {
    return [=] {
      auto document = ConfigDocument::parse(text, "recipe.toml", overrides);
      ConfigReader root = document.root();
      root.integer("steps", 1);
      ConfigReader optimizer = root.table("optimizer");
      optimizer.number("learning_rate", 1.0);
      optimizer.number("epsilon", 1.0);
      root.finish();
    };
  };
  EXPECT_NO_THROW(read("steps = 2\n[optimizer]\nepsilon = 3")());
  EXPECT_TRUE(throws_with(read("steps = 2\n\n[optimizer]\nlearning_rat = 3"),
                          {"recipe.toml:4: unknown key `learning_rat` in [optimizer]; did you mean "
                           "`learning_rate`?"}));
  EXPECT_TRUE(throws_with(read("step = 2"), {"recipe.toml:1: unknown key `step`; did you mean "
                                             "`steps`?"}));
  EXPECT_TRUE(throws_with(read("epsilon = 2"), {"`epsilon` belongs in [optimizer]"}));
  EXPECT_TRUE(throws_with(read("[optimizer]\nsteps = 2"), {"`steps` belongs above the first"}));
  EXPECT_TRUE(throws_with(read("zebra = 2"), {"known keys are steps, optimizer"}));
  EXPECT_TRUE(throws_with(read("[optimiser]\nepsilon = 2"),
                          {"unknown key `optimiser`", "did you mean `optimizer`?"}));
  EXPECT_TRUE(throws_with(read("", {"optimizer.epsilom=1"}),
                          {"--set: unknown key `epsilom` in [optimizer]", "`epsilon`"}));
  // The first in the file is the one that is named.
  EXPECT_TRUE(throws_with(read("zz = 1\naa = 2"), {"recipe.toml:1: unknown key `zz`"}));
}

TEST(TomlConfig, WrongTypesAndRangesSayFileLineFieldFoundExpected) {
  const auto with = [](const std::string& text, auto use) {
    return [=] {
      auto document = ConfigDocument::parse(text, "f.toml");
      use(document.root());
    };
  };
  EXPECT_TRUE(
      throws_with(with("\na = \"x\"", [](ConfigReader r) { r.integer("a", 1, within(1, 3)); }),
                  {"f.toml:2: a must be an integer from 1 to 3, got the string \"x\""}));
  EXPECT_TRUE(throws_with(with("a = 4", [](ConfigReader r) { r.integer("a", 1, within(1, 3)); }),
                          {"f.toml:1: a must be an integer from 1 to 3, got 4"}));
  EXPECT_TRUE(throws_with(with("a = 1.0", [](ConfigReader r) { r.integer("a", 1); }),
                          {"a must be an integer, got 1.0"}));
  EXPECT_TRUE(throws_with(with("a = 0", [](ConfigReader r) { r.number("a", 1.0, positive()); }),
                          {"a must be a number above 0, got 0"}));
  EXPECT_TRUE(throws_with(with("a = inf", [](ConfigReader r) { r.number("a", 1.0); }),
                          {"a must be a number, got inf"}));
  EXPECT_TRUE(
      throws_with(with("a = nan", [](ConfigReader r) { r.number("a", 1.0); }), {"got nan"}));
  EXPECT_TRUE(throws_with(with("a = 1", [](ConfigReader r) { r.boolean("a", true); }),
                          {"a must be true or false, got 1"}));
  EXPECT_TRUE(throws_with(with("a = 1979-05-27", [](ConfigReader r) { r.string("a", ""); }),
                          {"a must be a string, got the date 1979-05-27"}));
  EXPECT_TRUE(throws_with(with("a = 1", [](ConfigReader r) { r.table("a"); }),
                          {"a must be a table, got 1"}));
  EXPECT_TRUE(throws_with(
      with("[t]\na = [1,\n\"x\"]", [](ConfigReader r) { r.table("t").integers("a", kRequired); }),
      {"f.toml:3: t.a[1] must be an integer, got the string \"x\""}));
  EXPECT_TRUE(throws_with(with("[[a]]\nb = 1", [](ConfigReader r) { r.table("a"); }),
                          {"a must be a table, got a list of 1"}));
  EXPECT_TRUE(throws_with(with("a = \"z\"",
                               [](ConfigReader r) {
                                 r.choice("a", "x", {"x", "y"});
                               }),
                          {"a must be one of \"x\", \"y\", got the string \"z\""}));
  EXPECT_TRUE(throws_with(with("", [](ConfigReader r) { r.table("t").integer("n", kRequired); }),
                          {"f.toml: required key `n` in [t] is missing"}));
  EXPECT_TRUE(throws_with(with("stpes = 1", [](ConfigReader r) { r.integer("steps", kRequired); }),
                          {"required key `steps` is missing (f.toml:1 has `stpes`)"}));
  EXPECT_TRUE(throws_with(
      with("\n[t]\nn = 3", [](ConfigReader r) { r.table("t").refuse("n", "must be even, got 3"); }),
      {"f.toml:3: t.n must be even, got 3"}));
}

TEST(TomlConfig, OverridesReachIntoTables) {
  auto document =
      ConfigDocument::parse(kText, "r.toml",
                            {"steps=20", "optimizer.learning_rate=0.5", "mesh.pp=2",
                             "name=out/run-1", "flag=true", "optimizer.betas=[0.1, 0.2]",
                             "quoted=\"3\"", "empty=", "text=a = b", "day=2020-01-01", "steps=30"});
  ConfigReader root = document.root();
  EXPECT_EQ(root.integer("steps", kRequired), 30);  // the last one wins
  EXPECT_EQ(root.table("optimizer").number("learning_rate", kRequired), 0.5);
  EXPECT_EQ(root.table("mesh").integer("pp", 1), 2);
  EXPECT_EQ(root.string("name", kRequired), "out/run-1");
  EXPECT_TRUE(root.boolean("flag", false));
  EXPECT_EQ(root.table("optimizer").numbers("betas", kRequired)[1], 0.2);
  EXPECT_EQ(root.string("quoted", kRequired), "3");
  EXPECT_EQ(root.string("empty", kRequired), "");
  EXPECT_EQ(root.string("text", kRequired), "a = b");
  EXPECT_EQ(root.string("day", kRequired), "2020-01-01");

  const auto set = [](const std::string& override) {
    return [=] { ConfigDocument::parse(kText, "r.toml", {override}); };
  };
  EXPECT_TRUE(throws_with(set("steps"), {"--set must be key=value, got \"steps\""}));
  EXPECT_TRUE(throws_with(set("=3"), {"--set must be key=value"}));
  EXPECT_TRUE(throws_with(set("a..b=3"), {"--set a..b: the key must be names joined by dots"}));
  EXPECT_TRUE(throws_with(set("optimizer=3"), {"--set optimizer: optimizer is a table"}));
  EXPECT_TRUE(throws_with(set("steps.x=3"), {"--set steps.x: steps is 10"}));
  EXPECT_TRUE(throws_with(set("a=[1, 2"), {"--set a: "}));
  EXPECT_TRUE(throws_with(
      [] {
        auto d = ConfigDocument::parse("", "r.toml", {"steps=ten"});
        d.root().integer("steps", kRequired);
      },
      {"--set: steps must be an integer, got the string \"ten\""}));
}

TEST(TomlConfig, ResolvedFormReadsBackBitForBit) {
  auto document = ConfigDocument::parse(kText, "r.toml", {"optimizer.extra.on=false"});
  const std::vector<double> hard = {0.1, 1e-300, 5e-324, 1.0, -0.0, 123456789.123456789, 1e22};
  const auto read = [&](ConfigDocument from) {
    ConfigReader root = from.root();
    root.integer("steps", kRequired);
    root.string("name", kRequired);
    ConfigReader optimizer = root.table("optimizer");
    optimizer.number("learning_rate", kRequired);
    optimizer.numbers("betas", kRequired);
    EXPECT_FALSE(optimizer.table("extra").boolean("on", true));
    const auto numbers = root.numbers("hard", hard);
    for (std::size_t i = 0; i < hard.size(); ++i)
      EXPECT_EQ(std::bit_cast<std::uint64_t>(numbers.at(i)), std::bit_cast<std::uint64_t>(hard[i]));
    root.strings("odd", std::vector<std::string>{"tab\there", "\x01\x7f", "\"\\", "\u4e2d"});
    root.finish();
    return from.resolved();
  };
  const std::string once = read(document);
  EXPECT_EQ(once, read(ConfigDocument::parse(once, "resolved")));
  EXPECT_NE(once.find("[optimizer.extra]\non = false"), std::string::npos) << once;
  EXPECT_NE(once.find("hard = [0.1, 1e-300"), std::string::npos) << once;
}

TEST(TomlConfig, HostileTextIsOneLineOfError) {
  const auto parse = [](const std::string& text) {
    return [=] { ConfigDocument::parse(text, "h.toml"); };
  };
  EXPECT_TRUE(throws_with(parse("a = = 1"), {"h.toml:1: "}));
  EXPECT_TRUE(throws_with(parse("a = 1\nb = \"open\n"), {"h.toml:2: "}));
  EXPECT_TRUE(throws_with(parse("a = 1\na = 2"), {"h.toml:2: "}));
  EXPECT_TRUE(throws_with(parse(std::string("a = \"\xff\xfe\"")), {"h.toml:1: "}));
  EXPECT_TRUE(throws_with(parse(std::string("a\0b = 1", 7)), {"h.toml:1: "}));
  EXPECT_TRUE(throws_with(parse("a = " + std::string(100000, '[')), {"h.toml"}));
  EXPECT_TRUE(throws_with(parse(std::string("[") + "a" + std::string(5, ' ') +
                                [] {
                                  std::string dots;
                                  for (int i = 0; i < 100000; ++i) dots += ".a";
                                  return dots;
                                }() +
                                "]"),
                          {"h.toml:1: a key must have at most 17 parts"}));
  std::string inline_tables = "\n";
  for (int i = 0; i < 50000; ++i) inline_tables += "a={";
  EXPECT_TRUE(throws_with(parse(inline_tables), {"h.toml"}));
  EXPECT_TRUE(throws_with(parse(std::string((1 << 20) + 1, '#')), {"h.toml: must have at most"}));
  // Dots in text, numbers and comments are no key parts.
  const std::string dots(200, '.');
  EXPECT_NO_THROW(parse("a = \"" + dots + "\" # " + dots + "\nb = '''\n" + dots + "\n'''\n" +
                        "c = [0.1, 0.2, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, "
                        "0.1, 0.1, 0.1, 0.1, 0.1, 0.1]")());
  try {
    parse("a = \x01\x02\n")();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
  }
}

TEST(TomlConfig, EveryTruncationAndRandomBytesAreErrorsOrValues) {
  const std::string text = kText;
  Random random(3, "toml");
  const auto survive = [](const std::string& bytes) {
    try {
      auto document = ConfigDocument::parse(bytes, "x");
      ConfigReader root = document.root();
      root.integer("steps", 1);
      root.finish();
    } catch (const Error&) {
    }
  };
  for (std::size_t n = 0; n <= text.size(); ++n) survive(text.substr(0, n));
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = text;
    for (int i = 0; i < 3; ++i)
      bytes[random.below(bytes.size())] = static_cast<char>(random.below(256));
    survive(bytes);
  }
}

TEST(TomlConfig, MissingFileIsAnIoError) {
  EXPECT_THROW(ConfigDocument::load("/nowhere/r.toml"), IoError);
  EXPECT_TRUE(throws_with([] { ConfigDocument::load("/nowhere/r.toml"); },
                          {"/nowhere/r.toml: cannot open: No such file"}));
  EXPECT_THROW(ConfigDocument::load("/tmp"), IoError);
}

}  // namespace
}  // namespace lectern
