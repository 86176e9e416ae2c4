#include "recipes/config/find.h"

#include "core/error.h"
#include "core/io/file.h"
#include "recipes/config/toml_config.h"
#include "tests/testing.h"

#include <filesystem>

namespace lectern {
namespace {

namespace fs = std::filesystem;
using testing::throws_with;

/// Goes into a folder for as long as it lives.
class Inside {
 public:
  explicit Inside(const fs::path& folder) : before_(fs::current_path()) {
    fs::current_path(folder);
  }
  ~Inside() { fs::current_path(before_); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  fs::path before_;
};

TEST(Base, TablesMergeKeyByKeyAndAllElseIsReplaced) {
  const testing::TemporaryFolder folder;
  write_file(folder.path() / "below.toml",
             "a = 1\nlist = [1, 2]\n[t]\nx = 1\ny = 2\n[t.deep]\nk = 1\n[[item]]\nn = 1\n"
             "[[item]]\nn = 2\n");
  write_file(folder.path() / "middle.toml", "base = \"below\"\na = 2\nt.deep.l = 5\n");
  write_file(folder.path() / "top.toml",
             "base = \"middle.toml\"\nlist = [7]\n[t]\ny = 3\nz = 4\n[[item]]\nn = 3\n");
  const auto document = ConfigDocument::load(folder.path() / "top.toml", {"t.z=9"});
  ConfigReader root = document.root();
  EXPECT_EQ(root.integer("a", kRequired), 2);
  EXPECT_EQ(root.integers("list", kRequired), std::vector<std::int64_t>{7});
  ConfigReader table = root.table("t");
  EXPECT_EQ(table.integer("x", kRequired), 1);
  EXPECT_EQ(table.integer("y", kRequired), 3);
  EXPECT_EQ(table.integer("z", kRequired), 9);
  EXPECT_EQ(table.table("deep").integer("k", kRequired), 1);
  EXPECT_EQ(table.table("deep").integer("l", kRequired), 5);
  auto items = root.tables("item");
  ASSERT_EQ(items.size(), 1u);
  EXPECT_EQ(items[0].integer("n", kRequired), 3);
  root.finish();
}

TEST(Base, MessagesNameTheFileThatAValueStandsIn) {
  const testing::TemporaryFolder folder;
  const std::string below = folder.path() / "below.toml", top = folder.path() / "top.toml";
  write_file(below, "\nsteps = \"many\"\nrat = 1\n");
  write_file(top, "base = \"below\"\n\n\n\n\nrun = 1\n");
  const auto document = ConfigDocument::load(top);
  ConfigReader root = document.root();
  EXPECT_TRUE(throws_with([&] { root.integer("steps", kRequired); },
                          {below + ":2: steps must be an integer, got the string \"many\""}));
  root.string("steps", kRequired);
  root.number("rate", 1.0);
  // What stands in the file itself comes before what it inherits, whatever the lines.
  EXPECT_TRUE(throws_with([&] { root.finish(); }, {top + ":6: unknown key `run`"}));
  root.integer("run", kRequired);
  EXPECT_TRUE(throws_with([&] { root.finish(); },
                          {below + ":3: unknown key `rat`", "did you mean `rate`?"}));
}

TEST(Base, MissingAndCircularBasesAreErrorsWithTheirPlace) {
  const testing::TemporaryFolder folder;
  const auto file = [&](const char* name, const char* text) {
    write_file(folder.path() / name, text);
    return (folder.path() / name).string();
  };
  const auto load = [](const std::string& path) { return [=] { ConfigDocument::load(path); }; };
  const std::string lost = file("lost.toml", "a = 1\nbase = \"nowhere/to-be-found\"\n");
  EXPECT_TRUE(throws_with(load(lost), {lost + ":2: base: nowhere/to-be-found: is no file"}));
  const std::string odd = file("odd.toml", "base = 3\n");
  EXPECT_TRUE(throws_with(load(odd), {odd + ":1: base must be the name of a recipe, got 3"}));
  const std::string self = file("self.toml", "base = \"self\"\n");
  EXPECT_TRUE(throws_with(load(self), {"self.toml: base goes round in a circle"}));
  file("a.toml", "base = \"b\"\n");
  const std::string b = file("b.toml", "base = \"a\"\n");
  EXPECT_TRUE(throws_with(load(b), {"a.toml: base goes round in a circle", " -> "}));
  const std::string broken = file("broken.toml", "x = = 1\n");
  const std::string on = file("on.toml", "base = \"broken\"\n");
  EXPECT_TRUE(throws_with(load(on), {broken + ":1: "}));
  // It is a file that has a base: nothing else reads one.
  EXPECT_TRUE(throws_with([] { ConfigDocument::parse("base = \"a\"", "x").root().finish(); },
                          {"unknown key `base`"}));
  EXPECT_TRUE(throws_with([&] { ConfigDocument::load(odd, {"base=a"}); }, {"base must be"}));
}

TEST(FindRecipe, ByNameInTheWorkingDirectoryAndBesideTheProgram) {
  const testing::TemporaryFolder folder;
  const Inside inside(folder.path());
  const fs::path shipped = find_recipe("quickstart/stage1");
  EXPECT_TRUE(
      fs::equivalent(shipped, testing::source_folder() / "recipes/configs/quickstart/stage1.toml"));
  EXPECT_EQ(find_recipe("quickstart/stage1.toml"), shipped);
  EXPECT_EQ(find_recipe("recipes/configs/quickstart/stage1.toml"), shipped);
  fs::create_directories("recipes/configs/quickstart");
  write_file("recipes/configs/quickstart/stage1.toml", "");
  EXPECT_EQ(find_recipe("quickstart/stage1"), "recipes/configs/quickstart/stage1.toml");
  fs::create_directories("quickstart/stage1");  // a folder is no recipe
  EXPECT_EQ(find_recipe("quickstart/stage1"), "recipes/configs/quickstart/stage1.toml");
  fs::create_directories("quickstart");
  write_file("quickstart/stage2.toml", "");
  EXPECT_EQ(find_recipe("quickstart/stage2.toml"), "quickstart/stage2.toml");
  EXPECT_TRUE(throws_with([] { find_recipe("quickstart/stge3"); },
                          {"quickstart/stge3: is no file", "did you mean quickstart/stage3?"}));
  EXPECT_THROW(find_recipe("quickstart/stge3"), IoError);
}

TEST(FindRecipe, OldNamesSayTheNewOnes) {
  const testing::TemporaryFolder folder;
  const Inside inside(folder.path());
  for (const auto& [before, now] :
       {std::pair{"recipes/quickstart-stage1.toml", "quickstart/stage1 ("},
        std::pair{"recipes/quickstart-nano-stage2.toml", "quickstart-nano/stage2 ("},
        std::pair{"recipes/quickstart-mhc.toml", "quickstart-mhc/all ("},
        std::pair{"./recipes/quickstart-mhc-stage3.toml", "quickstart-mhc/stage3 ("},
        std::pair{"recipes/nano-stage3.toml", "nano/stage3 ("},
        std::pair{"recipes/nano-pretrain.toml", "nano/pretrain ("},
        std::pair{"recipes/ablate-queries.toml", "ablations/queries ("},
        std::pair{"recipes/ablate-stages-smoke.toml", "ablations/stages-smoke ("},
        std::pair{"/srv/lectern/recipes/gpus.toml", "machines/gpus ("}})
    EXPECT_TRUE(throws_with([&] { find_recipe(before); },
                            {std::string(before) + ": is now " + now, "/recipes/configs/"}))
        << before;
  EXPECT_TRUE(
      throws_with([&] { find_shipped("recipes/models/quickstart.json"); },
                  {"is now models/quickstart (", "recipes/configs/models/quickstart.json"}));
}

TEST(FindShipped, WhatRecipesNameIsFoundFromAnywhere) {
  const testing::TemporaryFolder folder;
  const Inside inside(folder.path());
  const fs::path model = "recipes/configs/models/quickstart.json";
  EXPECT_TRUE(fs::equivalent(find_shipped(model), testing::source_folder() / model));
  EXPECT_EQ(find_shipped("out/mine"), "out/mine");
  EXPECT_EQ(find_shipped("recipes/none.json"), "recipes/none.json");
  fs::create_directories(model.parent_path());
  write_file(model, "");
  EXPECT_EQ(find_shipped(model), model);
}

}  // namespace
}  // namespace lectern
