// Tensors on the device: copies, conversions, the allocator, errors.
#include "core/device_backend.h"
#include "core/ops/elementwise.h"
#include "cuda/allocator.h"
#include "cuda/streams.h"
#include "tests/cuda/check_cuda.h"

#include <cmath>
#include <cstdlib>

namespace lectern {
namespace {

using testing::gpu;
using testing::is_equal;
using testing::random_tensor;
using testing::throws_with;

TEST(CudaMemory, TensorsTravelThereAndBack) {
  for (const Shape& shape : {Shape{}, Shape{0}, Shape{1}, Shape{7, 3}, Shape{1500, 1000}}) {
    const Tensor x = random_tensor(shape, 1);  // the last is larger than a staging block
    const Tensor there = x.to(gpu());
    EXPECT_EQ(there.device(), gpu());
    EXPECT_TRUE(is_equal(there, x));
    EXPECT_TRUE(is_equal(there.clone(), x));
    EXPECT_EQ(there.to(gpu()).storage(), there.storage());
  }
}

TEST(CudaMemory, StridedViewsAreCopiedOnEitherSide) {
  const Tensor x = random_tensor({4, 6, 5}, 2);
  const Tensor there = x.to(gpu());
  EXPECT_TRUE(is_equal(there.permute({2, 0, 1}).contiguous(), x.permute({2, 0, 1}).contiguous()));
  EXPECT_TRUE(is_equal(x.permute({2, 0, 1}).to(gpu()), x.permute({2, 0, 1}).contiguous()));
  EXPECT_TRUE(is_equal(there.slice(1, 2, 5), x.slice(1, 2, 5).contiguous()));
  const Tensor target = Tensor::zeros({4, 6, 5}, DType::f32, gpu());
  target.slice(1, 1, 3).copy_from(x.slice(1, 3, 5));
  Tensor want = Tensor::zeros({4, 6, 5});
  want.slice(1, 1, 3).copy_from(x.slice(1, 3, 5));
  EXPECT_TRUE(is_equal(target, want));
}

TEST(CudaMemory, DtypesConvertAsOnTheCpu) {
  for (const std::int64_t n : {1, 7, 64, 1003}) {
    const Tensor x = random_tensor({n}, 3, DType::f32, 100.0);
    for (const DType dtype : {DType::bf16, DType::f64, DType::i32, DType::i64, DType::f32})
      EXPECT_TRUE(is_equal(x.to(gpu()).to(dtype), x.to(dtype))) << name_of(dtype) << n;
    const Tensor half = x.to(DType::bf16);
    EXPECT_TRUE(is_equal(half.to(gpu()).to(DType::f32), half.to(DType::f32)));
    EXPECT_TRUE(is_equal(x.to(DType::bf16).to(gpu()), half));
  }
}

TEST(CudaMemory, FillsAndZeros) {
  EXPECT_TRUE(is_equal(Tensor::full({3, 5}, 2.5, DType::bf16, gpu()),
                       Tensor::full({3, 5}, 2.5, DType::bf16)));
  EXPECT_TRUE(
      is_equal(Tensor::zeros({1025}, DType::i32, gpu()), Tensor::zeros({1025}, DType::i32)));
  const Tensor x = Tensor::zeros({4, 4}, DType::f32, gpu());
  x.slice(1, 1, 3).fill(1);
  Tensor want = Tensor::zeros({4, 4});
  want.slice(1, 1, 3).fill(1);
  EXPECT_TRUE(is_equal(x, want));
  EXPECT_EQ(Tensor::full({}, 3.25, DType::f32, gpu()).item(), 3.25);
}

TEST(CudaMemory, SmallTensorsOfTheCpuAreCopiedOnceAVersion) {
  const Tensor ids = Tensor::from(std::vector<std::int32_t>{1, 2, 3}, {3});
  const Tensor first = cuda::on_device(ids, gpu());
  EXPECT_EQ(cuda::on_device(ids, gpu()).storage(), first.storage());
  ids.data<std::int32_t>()[0] = 9;
  ids.mark_modified();
  EXPECT_TRUE(is_equal(cuda::on_device(ids, gpu()), ids));
  EXPECT_TRUE(is_equal(cuda::on_device(ids.slice(0, 1, 3), gpu()), ids.slice(0, 1, 3)));
}

TEST(CudaMemory, FreedBlocksAreUsedAgainAndJoined) {
  gpu();
  cuda::release_cached_segments();
  const auto before = cuda::allocator_statistics();
  void* blocks[6];
  for (void*& block : blocks) block = cuda::allocate(300 << 10);
  const auto used = cuda::allocator_statistics();
  EXPECT_EQ(used.current_bytes - before.current_bytes, std::size_t{6} * (300 << 10));
  for (const int i : {1, 3, 2, 0, 5, 4}) cuda::release(blocks[i]);
  EXPECT_EQ(cuda::allocator_statistics().current_bytes, before.current_bytes);
  void* whole = cuda::allocate(1 << 20);  // fits only where neighbours were joined
  EXPECT_EQ(cuda::allocator_statistics().reserved_bytes, used.reserved_bytes);
  cuda::release(whole);
  void* large = cuda::allocate(80 << 20);
  EXPECT_GT(cuda::allocator_statistics().reserved_bytes, used.reserved_bytes);
  cuda::release(large);
  cuda::release_cached_segments();
  EXPECT_LE(cuda::allocator_statistics().reserved_bytes, used.reserved_bytes);
}

TEST(CudaMemory, ReportsThatTheDeviceIsFull) {
  const std::int64_t more = std::int64_t{1} << 48;
  EXPECT_TRUE(throws_with([&] { Tensor::empty({more}, DType::u8, gpu()); },
                          {"cuda: cannot get 281474976710656 bytes", "bytes are in use"}));
}

TEST(CudaMemory, OperandsOfDifferentDevicesAreRefused) {
  const Tensor here = random_tensor({3}, 1), there = here.to(gpu());
  EXPECT_TRUE(
      throws_with([&] { add(there, here); }, {"add: b must be on cuda:0, got f32 [3] cpu"}));
  EXPECT_TRUE(throws_with([&] { multiply(here, there); }, {"multiply: b must be on cpu"}));
}

TEST(CudaMemory, DtypesThatKernelsDoNotKnowAreRefused) {
  const Tensor x = random_tensor({3}, 1, DType::f64).to(gpu());
  EXPECT_TRUE(
      throws_with([&] { gelu(x); }, {"gelu: x must be f32 or bf16 on CUDA, got f64 [3] cuda:0"}));
}

TEST(CudaMemory, RecycledMemoryIsPoisonedWhenAsked) {
  if (std::getenv("LECTERN_CUDA_POISON") == nullptr) GTEST_SKIP() << "skipped: nobody asked";
  const void* block = nullptr;
  {
    const Tensor written = Tensor::full({1000}, 3, DType::f32, gpu());
    block = written.raw();
  }
  const Tensor again = Tensor::empty({1000}, DType::f32, gpu());
  EXPECT_EQ(again.raw(), block);  // else this says nothing
  const Tensor here = again.to(Device{});
  for (std::int64_t i = 0; i < 1000; ++i) ASSERT_TRUE(std::isnan(here.data<float>()[i])) << i;
}

TEST(CudaMemory, AFaultOfAnEarlierKernelIsNotBlamedOnTheCall) {
  EXPECT_TRUE(throws_with([] { cuda::check(cudaErrorIllegalAddress, "swiglu"); },
                          {"swiglu: must succeed, got cudaErrorIllegalAddress",
                           "an earlier kernel may be at fault", "LECTERN_CUDA_SYNC=1"}));
  EXPECT_FALSE(throws_with([] { cuda::check(cudaErrorInvalidValue, "swiglu"); },
                           {"an earlier kernel may be at fault"}));
}

TEST(CudaMemory, OneProcessHasOneDevice) {
  gpu();
  EXPECT_NO_THROW(register_cuda(0));
  EXPECT_TRUE(throws_with([] { register_cuda(1); }, {"one process drives one device"}));
  const CudaStatus status = cuda_status();
  ASSERT_GE(status.devices.size(), 1u);
  EXPECT_GT(status.devices[0].bytes, std::size_t{1} << 30);
  EXPECT_EQ(status.problem, "");
}

}  // namespace
}  // namespace lectern
