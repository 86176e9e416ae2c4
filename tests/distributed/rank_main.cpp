// main() of the test programs that mpirun starts on several ranks (*_ranks.cpp): each rank runs all
// tests, rank 0 reports, the others report their failures only.
#include "distributed/groups.h"
#include "tests/distributed/ranks.h"

#include <cstdio>

namespace lectern::testing {
namespace {

std::shared_ptr<Communicator> world;

/// Prints failures with the rank that had them.
class FailuresOnly : public ::testing::EmptyTestEventListener {
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "[rank %d] %s:%d: %s\n", world->rank(),
                 result.file_name() != nullptr ? result.file_name() : "?", result.line_number(),
                 result.message());
  }
};

}  // namespace

Communicator& ranks() { return *world; }

int run_on_ranks(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  world = make_mpi_group();
  set_wait_limit(60);
  if (world->rank() > 0) {
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailuresOnly);
  }
  const int status = RUN_ALL_TESTS();
  if (status != 0) world->abort(status);  // the others may wait for this rank
  world.reset();
  return status;
}

}  // namespace lectern::testing

int main(int argc, char** argv) { return lectern::testing::run_on_ranks(argc, argv); }
