// Which operations have CUDA kernels. A new operation goes into one of the two lists.
#include "core/ops/accumulate.h"
#include "core/ops/adamw.h"
#include "core/ops/attention.h"
#include "core/ops/conv2d.h"
#include "core/ops/convert.h"
#include "core/ops/cross_entropy.h"
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

namespace lectern {
namespace {

using testing::gpu;
using testing::throws_with;

template <typename... Tables>
void expect_kernels(const Tables&... tables) {
  const auto check = [](const auto& table) { EXPECT_NO_THROW(table.at(gpu())); };
  (check(tables), ...);
}

TEST(CudaSlots, OperationsOfOcr2HaveKernels) {
  expect_kernels(accumulate_table(), adamw_table(), attention_table(), conv2d_table(),
                 convert_table(), cross_entropy_table(), elementwise_table(), experts_table(),
                 interpolate_table(), layer_norm_table(), layout_table(), linear_table(),
                 linear_cross_entropy_table(), matmul_table(), patchify_table(), reduce_table(),
                 rms_norm_table(), rope_table(), router_table(), rows_table(), swiglu_table(),
                 window_table());
}

// Residual streams (hc, mhc) train on the CPU only so far.
TEST(CudaSlots, OperationsOfResidualStreamsSayThatTheyHaveNone) {
  const auto refuses = [](const auto& table) {
    return throws_with([&] { table.at(gpu()); }, {"no kernel for cuda:0 in this build"});
  };
  EXPECT_TRUE(refuses(sinkhorn_table()));
  EXPECT_TRUE(refuses(stream_read_table()));
  EXPECT_TRUE(refuses(stream_stack_table()));
  EXPECT_TRUE(refuses(stream_write_table()));
}

}  // namespace
}  // namespace lectern
