// Every operation has CUDA kernels or a stated reason: the operations are those whose headers
// declare a table, what they have on CUDA is asked of the tables, and bench/GPU.md must say the
// same.
#include "core/io/file.h"
#include "core/ops/accumulate.h"
#include "core/ops/adamw.h"
#include "core/ops/attention.h"
#include "core/ops/conv2d.h"
#include "core/ops/convert.h"
#include "core/ops/cross_entropy.h"
#include "core/ops/dropout.h"
#include "core/ops/elementwise.h"
#include "core/ops/experts.h"
#include "core/ops/interpolate.h"
#include "core/ops/layer_norm.h"
#include "core/ops/layout.h"
#include "core/ops/linear.h"
#include "core/ops/linear_cross_entropy.h"
#include "core/ops/matmul.h"
#include "core/ops/patchify.h"
#include "core/ops/reduce.h"
#include "core/ops/rms_norm.h"
#include "core/ops/rope.h"
#include "core/ops/router.h"
#include "core/ops/rows.h"
#include "core/ops/sinkhorn.h"
#include "core/ops/stream_read.h"
#include "core/ops/stream_stack.h"
#include "core/ops/stream_write.h"
#include "core/ops/swiglu.h"
#include "core/ops/window.h"
#include "tests/cuda/check_cuda.h"

#include <filesystem>
#include <map>
#include <regex>
#include <set>
#include <sstream>

namespace lectern {
namespace {

using testing::gpu;

template <typename Functions>
bool has_slot(const KernelTable<Functions>& table) {
  try {
    table.at(gpu());
    return true;
  } catch (const DeviceError&) {
    return false;
  }
}

#define SLOT(operation) \
  { #operation, has_slot(operation##_table()) }
std::map<std::string, bool> slots() {
  return {SLOT(accumulate),   SLOT(adamw),
          SLOT(attention),    SLOT(conv2d),
          SLOT(convert),      SLOT(cross_entropy),
          SLOT(elementwise),  SLOT(experts),
          SLOT(interpolate),  SLOT(layer_norm),
          SLOT(layout),       SLOT(linear),
          SLOT(matmul),       SLOT(linear_cross_entropy),
          SLOT(patchify),     SLOT(reduce),
          SLOT(rms_norm),     SLOT(rope),
          SLOT(router),       SLOT(rows),
          SLOT(sinkhorn),     SLOT(stream_read),
          SLOT(stream_stack), SLOT(stream_write),
          SLOT(swiglu),       SLOT(window),
          SLOT(dropout)};
}
#undef SLOT

/// Names of the operations whose headers declare a table.
std::set<std::string> declared() {
  const std::regex table(R"(KernelTable<\w+>& (\w+)_table\(\);)");
  std::set<std::string> out;
  for (const auto& entry :
       std::filesystem::directory_iterator(testing::source_folder() / "core/ops")) {
    if (entry.path().extension() != ".h") continue;
    const std::string text = read_file(entry.path());
    for (std::sregex_iterator at(text.begin(), text.end(), table), end; at != end; ++at)
      out.insert((*at)[1]);
  }
  return out;
}

/// Rows "| `operation` | source or "none: reason" |" of bench/GPU.md.
std::map<std::string, std::string> documented() {
  const std::regex row(R"(^\| `(\w+)` \| (.+) \|$)");
  std::istringstream lines(read_file(testing::source_folder() / "bench/GPU.md"));
  std::map<std::string, std::string> out;
  std::smatch match;
  for (std::string line; std::getline(lines, line);)
    if (std::regex_match(line, match, row)) out[match[1]] = match[2];
  return out;
}

/// A bundle has the tests without the sources.
bool has_sources() { return std::filesystem::exists(testing::source_folder() / "core/ops"); }

TEST(CudaSlots, EveryOperationIsKnownHere) {
  if (!has_sources()) GTEST_SKIP() << "no sources beside the program";
  std::set<std::string> known;
  for (const auto& [operation, has] : slots()) known.insert(operation);
  EXPECT_EQ(known, declared());
}

TEST(CudaSlots, EveryOperationHasKernelsOrAStatedReason) {
  if (!has_sources()) GTEST_SKIP() << "no sources beside the program";
  const auto table = documented();
  const std::string none = "none: ";
  for (const auto& [operation, has] : slots()) {
    SCOPED_TRACE(operation);
    ASSERT_TRUE(table.contains(operation)) << "bench/GPU.md has no row for it";
    const std::string& where = table.at(operation);
    if (!has) {
      EXPECT_TRUE(where.starts_with(none) && where.size() > none.size() + 10) << where;
      continue;
    }
    const std::regex source(R"(`(cuda/[\w/]+\.(cu|cpp))`)");
    std::sregex_iterator at(where.begin(), where.end(), source), end;
    EXPECT_NE(at, end) << "its row names no source: " << where;
    for (; at != end; ++at)
      EXPECT_TRUE(std::filesystem::exists(testing::source_folder() / std::string((*at)[1])))
          << (*at)[1];
  }
  for (const auto& [operation, where] : table)
    EXPECT_TRUE(slots().contains(operation)) << "bench/GPU.md: no operation " << operation;
}

}  // namespace
}  // namespace lectern
