// scripts/check-includes.sh must be able to fail: it is run here on folders with known faults.
#include "tests/testing.h"

#include <sys/wait.h>

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

/// Runs the check on a folder that holds one file with one line.
Outcome check(const std::string& path, const std::string& line) {
  const testing::TemporaryFolder folder;
  const auto file = folder.path() / path;
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file) << "// a comment with #include \"nn/module.h\"\n" << line << "\n";
  const std::string command = (testing::source_folder() / "scripts/check-includes.sh").string() +
                              " " + folder.path().string() + " 2>&1";
  Outcome outcome;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return outcome;
  std::array<char, 4096> buffer;
  while (fgets(buffer.data(), static_cast<int>(buffer.size()), pipe) != nullptr)
    outcome.output += buffer.data();
  outcome.status = WEXITSTATUS(pclose(pipe));
  return outcome;
}

TEST(IncludeCheck, lets_the_order_of_dependency_pass) {
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

TEST(IncludeCheck, refuses_forbidden_arrows) {
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

TEST(IncludeCheck, refuses_libraries_out_of_place) {
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

TEST(IncludeCheck, wants_paths_from_the_source_folder) {
  for (const char* line : {"#include \"tensor.h\"", "#include \"../core/tensor.h\""}) {
    const Outcome outcome = check("core/a.cpp", line);
    EXPECT_EQ(outcome.status, 1) << line;
    EXPECT_NE(outcome.output.find("name it from the source folder"), std::string::npos);
  }
}

TEST(IncludeCheck, a_folder_without_sources_is_an_error) {
  EXPECT_EQ(check("elsewhere/a.cpp", "#include <vector>").status, 2);
}

}  // namespace
}  // namespace lectern
