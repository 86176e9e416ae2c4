#include "core/io/file.h"

#include "tests/testing.h"

#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace lectern {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;
using testing::throws_with;

std::size_t files_in(const fs::path& folder) {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder)) ++count;
  return count;
}

TEST(File, WritesAndReadsBack) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "a.txt";
  const std::string text = std::string("line\n\0tail", 10) + std::string(100'000, 'x');
  write_file(path, text);
  EXPECT_EQ(read_file(path), text);
  EXPECT_EQ(files_in(folder.path()), 1u);
  const MappedFile mapped = map_file(path);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(mapped.bytes.data()), mapped.bytes.size()),
            text);
  write_file(path, "");
  EXPECT_EQ(read_file(path), "");
  EXPECT_TRUE(map_file(path).bytes.empty());
}

TEST(File, ReadErrorsNameTheFile) {
  const TemporaryFolder folder;
  const auto missing = folder.path() / "missing";
  EXPECT_TRUE(throws_with([&] { read_file(missing); }, {missing.string(), "cannot open"}));
  EXPECT_TRUE(throws_with([&] { map_file(missing); }, {missing.string(), "cannot open"}));
  EXPECT_TRUE(throws_with([&] { read_file(folder.path()); }, {"must be a regular file"}));
  const auto path = folder.path() / "big";
  write_file(path, "12345");
  EXPECT_TRUE(throws_with([&] { read_file(path, 4); }, {"must be at most 4 bytes, got 5"}));
}

TEST(File, NamedPipeIsRefusedNotWaitedFor) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "pipe";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_TRUE(throws_with([&] { read_file(path); }, {"must be a regular file"}));
  EXPECT_TRUE(throws_with([&] { map_file(path); }, {"must be a regular file"}));
}

TEST(AtomicFile, KeepsTheOldContentUntilCommit) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "a";
  write_file(path, "old");
  {
    AtomicFile file(path);
    file.write("new");
    EXPECT_EQ(read_file(path), "old");
    file.commit();
    EXPECT_EQ(read_file(path), "new");
  }
  EXPECT_EQ(files_in(folder.path()), 1u);
}

TEST(AtomicFile, LeavesNothingWithoutCommit) {
  const TemporaryFolder folder;
  { AtomicFile(folder.path() / "a").write("half"); }
  EXPECT_EQ(files_in(folder.path()), 0u);
}

TEST(AtomicFile, LeavesNothingWhenTheNameIsTaken) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "folder";
  fs::create_directory(path);
  fs::create_directory(path / "inside");
  EXPECT_TRUE(throws_with([&] { write_file(path, "x"); }, {path.string(), "cannot write"}));
  EXPECT_EQ(files_in(folder.path()), 1u);
  EXPECT_TRUE(throws_with([&] { write_file(folder.path() / "no" / "a", "x"); }, {"cannot create"}));
}

TEST(ParseJson, RefusesBadText) {
  EXPECT_EQ(parse_json(R"({"a": [1, 2]})", "x")["a"][1], 2);
  for (const std::string text :
       {"", "{", "{\"a\": NaN}", "[1,]", "\"\xff\"", "{} {}", "nul", "1e999"})
    EXPECT_TRUE(throws_with([&] { parse_json(text, "some.json"); }, {"some.json: not valid JSON"}))
        << text;
}

TEST(ParseJson, RefusesDeepNesting) {
  const auto nested = [](std::size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  parse_json(nested(60), "x");
  EXPECT_TRUE(throws_with([&] { parse_json(nested(100), "x"); }, {"x: JSON must nest at most 64"}));
  EXPECT_TRUE(throws_with([&] { parse_json(std::string(1 << 20, '['), "x"); }, {"nest at most"}));
}

TEST(ParseJson, KeysGivenTwice) {
  const std::string twice = R"({"a": 1, "b": {"a": 2}, "a": 3})";
  EXPECT_EQ(parse_json(twice, "x")["a"], 3);
  EXPECT_TRUE(throws_with([&] { parse_json(twice, "x", JsonKeys::unique); },
                          {"x: key \"a\" must be given once"}));
  EXPECT_TRUE(throws_with([] { parse_json(R"({"b": {"k": 1, "k": 1}})", "x", JsonKeys::unique); },
                          {"key \"k\""}));
  parse_json(R"({"a": [{"k": 1}, {"k": 2}], "b": {"k": 1}, "k": {"a": 0, "b": 0}})", "x",
             JsonKeys::unique);
}

}  // namespace
}  // namespace lectern
