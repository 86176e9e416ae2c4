// scripts/check-includes.sh and function-lengths.sh must be able to fail: they are run here on
// folders with known faults.
#include "tests/testing.h"

#include <fmt/core.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <string>

namespace lectern {
namespace {

struct Outcome {
  int status = -1;
  std::string output;
};

/// A folder of sources that the check is run on.
class Tree {
 public:
  void add(const std::string& path, const std::string& text) const {
    const auto file = folder_.path() / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }

  Outcome check(const std::string& script = "check-includes.sh") const {
    const std::string command = (testing::source_folder() / "scripts" / script).string() + " " +
                                folder_.path().string() + " 2>&1";
    Outcome outcome;
    FILE* pipe = popen(command.c_str(), "r");
    if (pipe == nullptr) return outcome;
    std::array<char, 4096> buffer;
    while (fgets(buffer.data(), static_cast<int>(buffer.size()), pipe) != nullptr)
      outcome.output += buffer.data();
    outcome.status = WEXITSTATUS(pclose(pipe));
    return outcome;
  }

 private:
  testing::TemporaryFolder folder_;
};

/// Runs the check on a folder that holds one file with one line.
Outcome check(const std::string& path, const std::string& line) {
  const Tree tree;
  tree.add(path, "// a comment with #include \"nn/module.h\"\n" + line + "\n");
  return tree.check();
}

/// Whether the check fails and says `reason`.
::testing::AssertionResult refuses(const Outcome& outcome, const std::string& reason) {
  if (outcome.status == 1 && outcome.output.find(reason) != std::string::npos)
    return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "status " << outcome.status << ": " << outcome.output;
}

TEST(IncludeCheck, LetsTheOrderOfDependencyPass) {
  for (const auto& [path, line] : std::initializer_list<std::pair<const char*, const char*>>{
           {"core/a.cpp", "#include \"core/tensor.h\""},
           {"core/a.cpp", "#include <vector>"},
           {"core/ops/a.cpp", "#include <oneapi/dnnl/dnnl.hpp>"},
           {"autograd/a.h", "#include \"core/tensor.h\""},
           {"nn/ocr2/a.h", "  #  include \"autograd/variable.h\""},
           {"distributed/a.h", "#include \"nn/parameter.h\""},
           {"distributed/mpi_communicator.cpp", "#include <mpi.h>"},
           {"recipes/a.cpp", "#include \"distributed/mesh.h\""},
           {"recipes/a.cpp", "#include \"data/pages/page.h\""},
           {"recipes/a.cpp", "#include \"cuda/register.h\""},
           {"cuda/a.cu", "#include <cuda_runtime.h>"},
           {"data/a.cpp", "#include <hdf5.h>"},
           {"tests/a.cpp", "#include \"recipes/recipe/recipe.h\""},
           {"bench/a.cpp", "#include <benchmark/benchmark.h>"}}) {
    const Outcome outcome = check(path, line);
    EXPECT_EQ(outcome.status, 0) << path << ": " << line << "\n" << outcome.output;
  }
}

TEST(IncludeCheck, RefusesForbiddenArrows) {
  for (const auto& [path, line] : std::initializer_list<std::pair<const char*, const char*>>{
           {"core/a.h", "#include \"autograd/variable.h\""},
           {"core/a.h", "#include \"data/pages/page.h\""},
           {"autograd/ops/a.cpp", "#include \"nn/parameter.h\""},
           {"nn/a.cpp", "#include \"distributed/communicator.h\""},
           {"nn/a.cpp", "#include \"cuda/register.h\""},
           {"distributed/a.cpp", "#include \"recipes/recipe/recipe.h\""},
           {"distributed/a.cpp", "#include \"data/pages/page.h\""},
           {"data/a.h", "#include \"autograd/variable.h\""},
           {"cuda/ops/a.cu", "#include \"autograd/variable.h\""},
           {"recipes/a.cpp", "#include \"cuda/ops/rms_norm.cuh\""},
           {"recipes/a.cpp", "#include \"tests/testing.h\""}}) {
    const Outcome outcome = check(path, line);
    EXPECT_EQ(outcome.status, 1) << path << ": " << line;
    EXPECT_NE(outcome.output.find(std::string(path) + ":2: "), std::string::npos) << outcome.output;
    EXPECT_NE(outcome.output.find("may include only: "), std::string::npos) << outcome.output;
  }
}

TEST(IncludeCheck, RefusesLibrariesOutOfPlace) {
  for (const auto& [path, line] : std::initializer_list<std::pair<const char*, const char*>>{
           {"nn/a.cpp", "#include <oneapi/dnnl/dnnl.hpp>"},
           {"recipes/a.cpp", "#include <hdf5.h>"},
           {"nn/a.cpp", "#include <toml++/toml.h>"},
           {"core/a.h", "#include <spdlog/spdlog.h>"},
           {"data/a.cpp", "#include <CLI/CLI.hpp>"},
           {"core/a.cpp", "#include <cuda_runtime.h>"},
           {"distributed/mesh.cpp", "#include <mpi.h>"},
           {"core/a.cpp", "#include <gtest/gtest.h>"}}) {
    const Outcome outcome = check(path, line);
    EXPECT_EQ(outcome.status, 1) << path << ": " << line;
    EXPECT_NE(outcome.output.find("does not belong in this file"), std::string::npos)
        << outcome.output;
  }
  EXPECT_NE(check("core/a.cpp", "#include <boost/any.hpp>").output.find("is not in scripts/"),
            std::string::npos);
}

TEST(IncludeCheck, LetsTheOrderOfRoomsPass) {
  for (const auto& [path, line] : std::initializer_list<std::pair<const char*, const char*>>{
           {"core/ops/a.cpp", "#include \"core/cpu/gemm.h\""},
           {"core/cpu/a.cpp", "#include \"core/parallel.h\""},
           {"nn/language/a.cpp", "#include \"nn/blocks/residual.h\""},
           {"nn/ocr2/a.cpp", "#include \"nn/vision/sam.h\""},
           {"nn/ocr2/family.cpp", "#include \"nn/families.h\""},
           {"nn/model.h", "#include \"nn/model_config.h\""},
           {"nn/generation/generation.h", "#include \"nn/model.h\""},
           {"data/samples/a.cpp", "#include \"data/synthetic/synthetic.h\""},
           {"cuda/ops/a.cu", "#include \"cuda/launch.h\""},
           {"cuda/register.cpp", "#include \"cuda/ops/register_ops.h\""},
           {"recipes/main.cpp", "#include \"recipes/commands/command.h\""},
           {"recipes/train/a.cpp", "#include \"recipes/checkpoint/saver.h\""}}) {
    const Outcome outcome = check(path, line);
    EXPECT_EQ(outcome.status, 0) << path << ": " << line << "\n" << outcome.output;
  }
}

TEST(IncludeCheck, RefusesRoomsThatAreNotBelow) {
  for (const auto& [path, line] : std::initializer_list<std::pair<const char*, const char*>>{
           {"core/tensor.cpp", "#include \"core/ops/rms_norm.h\""},
           {"core/cpu/a.h", "#include \"core/io/file.h\""},
           {"autograd/variable.h", "#include \"autograd/ops/linear.h\""},
           {"nn/parameter.h", "#include \"nn/blocks/residual.h\""},
           {"nn/vision/sam.cpp", "#include \"nn/generation/generation.h\""},
           {"nn/families.h", "#include \"nn/ocr2/model.h\""},
           {"nn/language/decoder.cpp", "#include \"nn/model.h\""},
           {"nn/language/decoder.cpp", "#include \"nn/generation/generation.h\""},
           {"nn/ocr1/model.cpp", "#include \"nn/ocr2/model.h\""},
           {"data/text/utf8.cpp", "#include \"data/tokenizer/tokenizer.h\""},
           {"data/layout/a.cpp", "#include \"data/samples/sample.h\""},
           {"cuda/launch.h", "#include \"cuda/ops/column_sum.h\""},
           {"distributed/mesh.cpp", "#include \"distributed/nccl/library.h\""},
           {"recipes/config/a.cpp", "#include \"recipes/evaluate/score.h\""},
           {"recipes/log/a.cpp", "#include \"recipes/train/trainer.h\""},
           {"recipes/parity/a.cpp", "#include \"recipes/plan/plan.h\""}})
    EXPECT_TRUE(refuses(check(path, line), "a room may include only rooms below it")) << path;
}

TEST(IncludeCheck, RefusesRoomsThatNoLineNames) {
  EXPECT_TRUE(refuses(check("recipes/attic/a.cpp", "#include \"recipes/config/tree.h\""),
                      "not in rooms()"));
  EXPECT_TRUE(
      refuses(check("recipes/train/a.cpp", "#include \"recipes/attic/a.h\""), "not in rooms()"));
}

TEST(IncludeCheck, KeepsPrivateHeadersInTheirRoom) {
  const std::string include = "#include \"nn/blocks/tiles.h\"\n";
  for (const auto& [path, is_home] :
       std::initializer_list<std::pair<const char*, bool>>{{"nn/blocks/a.cpp", true},
                                                           {"tests/nn/blocks/a.cpp", true},
                                                           {"nn/ocr2/a.cpp", false},
                                                           {"distributed/a.cpp", false},
                                                           {"tests/nn/ocr2/a.cpp", false}}) {
    const Tree tree;
    tree.add("nn/blocks/tiles.h", "// Tiles; two lines of\n// words. Private to\n// this room.\n");
    tree.add("nn/ocr2/model.cpp", "");
    tree.add(path, include);
    const Outcome outcome = tree.check();
    if (is_home)
      EXPECT_EQ(outcome.status, 0) << path << outcome.output;
    else
      EXPECT_TRUE(refuses(outcome, "this header is private to nn/blocks/")) << path;
  }
}

TEST(IncludeCheck, WantsOneFormOfPrivacy) {
  for (const char* line : {"// Tiles (private to tiles.cpp).", "// Tiles; private to nn/."})
    for (const char* path : {"nn/blocks/tiles.h", "cuda/ops/tiles.cuh"}) {
      const Tree tree;
      tree.add(path, std::string(line) + "\n#pragma once\n#include <vector>\n");
      EXPECT_TRUE(refuses(tree.check(), "must say \"Private to this room.\"")) << line;
    }
}

TEST(IncludeCheck, RefusesCrowdedRooms) {
  for (const auto& [room, most] : std::initializer_list<std::pair<const char*, int>>{
           {"nn/blocks", 30}, {"tests/nn/blocks", 30}, {"core/ops", 1000}}) {
    const Tree tree;
    tree.add("nn/blocks/a.h", "#include <vector>\n");
    for (int i = 0; i < 31; ++i)
      tree.add(fmt::format("{}/source{}.{}", room, i, i % 2 == 0 ? "cpp" : "cu"),
               "#include <vector>\n");
    const Outcome outcome = tree.check();
    if (most < 31)
      EXPECT_TRUE(refuses(outcome, fmt::format("{}: holds 31 sources", room)));
    else
      EXPECT_EQ(outcome.status, 0) << outcome.output;
  }
}

TEST(IncludeCheck, RefusesLongFiles) {
  for (const int lines : {500, 501}) {
    std::string text = "#include <vector>\n";
    for (int i = 1; i < lines; ++i) text += "\n";
    const Tree tree;
    tree.add("core/a.cpp", text);
    const Outcome outcome = tree.check();
    if (lines > 500)
      EXPECT_TRUE(refuses(outcome, "core/a.cpp: has 501 lines"));
    else
      EXPECT_EQ(outcome.status, 0) << outcome.output;
  }
}

TEST(IncludeCheck, RefusesFamiliesOutsideTheirRooms) {
  for (const auto& [path, is_home] : std::initializer_list<std::pair<const char*, bool>>{
           {"nn/ocr2/a.cpp", true},
           {"nn/families.cpp", true},
           {"recipes/parity/ocr2.cpp", true},
           {"recipes/export/ocr2_names.h", true},
           {"tests/recipes/parity/ocr2_test.cpp", true},
           {"nn/blocks/a.h", false},
           {"recipes/train/a.cpp", false},
           {"tests/recipes/train/a_test.cpp", false}})
    for (const char* line : {"struct Ocr2Model;", "// see nn/ocr2/model.h"}) {
      const Tree tree;
      for (const char* room : {"nn/ocr2", "recipes/train", "recipes/parity"})
        tree.add(std::string(room) + "/other.cpp", "#include <vector>\n");
      tree.add(path, std::string(line) + "\n");
      const Outcome outcome = tree.check();
      if (is_home)
        EXPECT_EQ(outcome.status, 0) << path << outcome.output;
      else
        EXPECT_TRUE(refuses(outcome, std::string(path) + ": names the family")) << line;
    }
}

TEST(IncludeCheck, WantsTestsToMirrorRooms) {
  const Tree tree;
  tree.add("recipes/train/a.cpp", "#include <vector>\n");
  tree.add("tests/recipes/train/a_test.cpp", "#include <vector>\n");
  tree.add("tests/fixtures/train/a.txt", "");
  EXPECT_EQ(tree.check().status, 0);
  tree.add("tests/recipes/trainer/a_test.cpp", "#include <vector>\n");
  EXPECT_TRUE(refuses(tree.check(), "tests/recipes/trainer: mirrors no room"));
}

TEST(FunctionLengths, RefusesLongFunctionsWithoutAReason) {
  struct Case {
    const char *above, *head, *first, *indent;
    bool is_refused;
  };
  for (const Case& c : std::initializer_list<Case>{
           {"", "void f() {", "", "", true},
           {"// What it does.",
            "template <typename T>\nstd::vector<T> f(int a,\n                 int b) {", "", "",
            true},
           {"", "  void member() const {", "", "  ", true},
           {"", "TEST(A, b) {", "", "", true},
           {"// Over 60 lines: a case a line.", "void f() {", "", "", false},
           {"", "void f() {", "  // over 60 lines: a case a line", "", false},
           {"// Over 60 lines:", "void f() {", "", "", true},
           {"", "namespace a {", "", "", false},
           {"", "constexpr int kTable[] = {", "", "", false}}) {
    for (const int lines : {60, 61}) {
      std::string text = std::string(c.above) + "\n" + c.head + "\n" + c.first + "\n";
      const auto heads = std::count(c.head, c.head + std::string(c.head).size(), '\n') + 3;
      for (auto i = heads; i < lines; ++i) text += "  a();\n";
      const Tree tree;
      tree.add("core/a.cpp", text + c.indent + "}\n");
      const Outcome outcome = tree.check("function-lengths.sh");
      if (lines > 60 && c.is_refused)
        EXPECT_TRUE(refuses(outcome, "a function of 61 lines")) << c.head;
      else
        EXPECT_EQ(outcome.status, 0) << c.head << outcome.output;
    }
  }
}

TEST(IncludeCheck, WantsPathsFromTheSourceFolder) {
  for (const char* line : {"#include \"tensor.h\"", "#include \"../core/tensor.h\""}) {
    const Outcome outcome = check("core/a.cpp", line);
    EXPECT_EQ(outcome.status, 1) << line;
    EXPECT_NE(outcome.output.find("name it from the source folder"), std::string::npos);
  }
}

TEST(IncludeCheck, AFolderWithoutSourcesIsAnError) {
  EXPECT_EQ(check("elsewhere/a.cpp", "#include <vector>").status, 2);
}

}  // namespace
}  // namespace lectern
