// The emulator itself: it computes what a GPU would, and it catches what a GPU would not.
#include "tests/cuda_emulation/emulator.h"

#include "cuda/collective.h"
#include "cuda/launch.h"
#include "cuda/register.h"
#include "tests/testing.h"

#include <vector>

namespace lectern {
namespace {

using cuda::kAllLanes;
using cuda::Shared;
using cuda::SharedMemory;
using cuda::Span;
using testing::throws_with;

/// Device memory with the given values; values() fetches it.
class Buffer {
 public:
  explicit Buffer(std::vector<float> values) {
    register_cuda();
    const auto count = static_cast<std::int64_t>(values.size());
    tensor_ = Tensor::from(values, {count}).to(Device{DeviceType::cuda, 0});
  }
  explicit Buffer(std::int64_t count)
      : Buffer(std::vector<float>(static_cast<std::size_t>(count))) {}
  Span<float> span() const { return cuda::span<float>(tensor_); }
  std::vector<float> values() const {
    const Tensor host = tensor_.to(Device{});
    return {host.data<float>(), host.data<float>() + host.numel()};
  }

 private:
  Tensor tensor_;
};

template <typename... Parameters, typename... Arguments>
void run(cuda::LaunchShape shape, void (*kernel)(Parameters...), Arguments... arguments) {
  register_cuda();
  cuda::launch("test kernel", shape, kernel, arguments...);
}

__global__ void indices_kernel(Span<float> out) {
  const int block =
      static_cast<int>(blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z));
  const int thread =
      static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
  const int threads = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
  out[block * threads + thread] = static_cast<float>(block * threads + thread);
}

TEST(Emulator, EveryThreadOfEveryBlockHasItsIndices) {
  const Buffer out(2 * 3 * 2 * 4 * 3 * 2);
  run({dim3(2, 3, 2), dim3(4, 3, 2)}, indices_kernel, out.span());
  const auto values = out.values();
  for (std::size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], static_cast<float>(i));
}

/// out[i] = sum of the block's thread numbers: needs both barriers to be right.
__global__ void sum_kernel(Span<float> out) {
  SharedMemory memory;
  const auto scratch = memory.take<float>(32);
  const float sum = cuda::block_sum(scratch, static_cast<float>(threadIdx.x));
  const float again = cuda::block_sum(scratch, 1.0f);
  const float largest = cuda::block_max(scratch, static_cast<float>(threadIdx.x));
  out[cuda::kWarp * 8 * static_cast<int>(blockIdx.x) + static_cast<int>(threadIdx.x)] =
      sum + 1000000.0f * again + 0.25f * largest;
}

TEST(Emulator, BlockSumsUseShufflesBarriersAndSharedMemory) {
  const Buffer out(3 * 256);
  run({dim3(3), dim3(256), cuda::shared_bytes_of<float>(32)}, sum_kernel, out.span());
  for (const float value : out.values())
    EXPECT_EQ(value, 255.0f * 128.0f + 1000000.0f * 256.0f + 0.25f * 255.0f);
}

__global__ void votes_kernel(Span<float> out) {
  const int lane = static_cast<int>(threadIdx.x);
  const unsigned odd = __ballot_sync(kAllLanes, lane % 2 == 1);
  const int up = __shfl_up_sync(kAllLanes, lane, 1), down = __shfl_down_sync(kAllLanes, lane, 2);
  const int from = __shfl_sync(kAllLanes, lane, 7, 8), mixed = __shfl_xor_sync(kAllLanes, lane, 5);
  const bool any = __any_sync(kAllLanes, lane == 31) != 0,
             all = __all_sync(kAllLanes, lane < 31) != 0;
  const bool right = odd == 0xaaaaaaaau && up == (lane == 0 ? 0 : lane - 1) &&
                     down == (lane > 29 ? lane : lane + 2) && from == lane / 8 * 8 + 7 &&
                     mixed == (lane ^ 5) && any && !all;
  out[lane] = right ? 1.0f : 0.0f;
}

TEST(Emulator, ShufflesAndVotesAsInTheManual) {
  const Buffer out(32);
  run({dim3(1), dim3(32)}, votes_kernel, out.span());
  EXPECT_EQ(out.values(), std::vector<float>(32, 1.0f));
}

__global__ void atomics_kernel(Span<float> out) {
  SharedMemory memory;
  const auto count = memory.take<int>(1);
  if (threadIdx.x == 0) count[0] = 0;
  __syncthreads();
  count.atomic_add(0, 1);
  out.atomic_add(0, 2.0f);
  __syncthreads();
  if (threadIdx.x == 0) out.atomic_add(1, static_cast<float>(count[0]));
}

TEST(Emulator, AtomicsAddOnceAThread) {
  const Buffer out(2);
  run({dim3(3), dim3(64), cuda::shared_bytes_of<int>(1)}, atomics_kernel, out.span());
  EXPECT_EQ(out.values(), (std::vector<float>{2.0f * 192, 192.0f}));
}

/// c = a b with one tile; a [16, 16] row-major, b [16, 8] row-major, small integers.
__global__ void tile_kernel(Span<const float> a, Span<const float> b, Span<float> c) {
  const int group = static_cast<int>(threadIdx.x) / 4, pair = static_cast<int>(threadIdx.x) % 4 * 2;
  const auto two = [](float low, float high) { return cuda::pack_bf16(low, high); };
  cuda::TileA x;
  for (int i = 0; i < 4; ++i) {
    const int row = group + i % 2 * 8, column = pair + i / 2 * 8;
    x.parts[i] = two(a[row * 16 + column], a[row * 16 + column + 1]);
  }
  cuda::TileB y;
  for (int i = 0; i < 2; ++i) {
    const int row = pair + i * 8;
    y.parts[i] = two(b[row * 8 + group], b[(row + 1) * 8 + group]);
  }
  cuda::TileC z{};
  cuda::multiply_tile(z, x, y);
  cuda::multiply_tile(z, x, y);
  for (int i = 0; i < 4; ++i) c[(group + i / 2 * 8) * 8 + pair + i % 2] = z.sums[i];
}

TEST(Emulator, TheTileInstructionMultiplies) {
  std::vector<float> a(256), b(128), want(128);
  for (int i = 0; i < 256; ++i)
    a[static_cast<std::size_t>(i)] = static_cast<float>(i * 7 % 23 - 11);
  for (int i = 0; i < 128; ++i) b[static_cast<std::size_t>(i)] = static_cast<float>(i * 5 % 17 - 8);
  for (std::size_t i = 0; i < 16; ++i)
    for (std::size_t j = 0; j < 8; ++j)
      for (std::size_t k = 0; k < 16; ++k) want[i * 8 + j] += 2 * a[i * 16 + k] * b[k * 8 + j];
  const Buffer x(a), y(b), out(128);
  cuda::launch("tile", {dim3(1), dim3(32)}, tile_kernel,
               Span<const float>(x.span().address(0, 256), 256),
               Span<const float>(y.span().address(0, 128), 128), out.span());
  EXPECT_EQ(out.values(), want);
}

/// Loads four matrices [8, 8] of shared memory [8, 32], plain and transposed.
template <bool kTransposed>
__global__ void load_kernel(Span<float> out) {
  SharedMemory memory;
  const auto tile = memory.take<BFloat16>(8 * 32);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 8 * 32; i += 32) tile[i] = BFloat16(static_cast<float>(i));
  __syncthreads();
  std::uint32_t parts[4];
  cuda::load_matrices<kTransposed>(parts, tile, lane % 8 * 32 + lane / 8 * 8);
  for (int m = 0; m < 4; ++m)
    for (int half = 0; half < 2; ++half) {
      const int row = kTransposed ? lane % 4 * 2 + half : lane / 4;
      const int column = kTransposed ? lane / 4 : lane % 4 * 2 + half;
      BFloat16 value;
      value.bits = static_cast<std::uint16_t>(parts[m] >> (16 * half));
      out[row * 32 + m * 8 + column] = static_cast<float>(value);
    }
}

TEST(Emulator, MatricesAreLoadedPlainAndTransposed) {
  for (const bool transposed : {false, true}) {
    const Buffer out(256);
    run({dim3(1), dim3(32), cuda::shared_bytes_of<BFloat16>(256)},
        transposed ? load_kernel<true> : load_kernel<false>, out.span());
    const auto values = out.values();
    for (std::size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], static_cast<float>(i));
  }
}

__global__ void async_kernel(Span<const float> in, Span<float> out, bool wait) {
  SharedMemory memory;
  const auto tile = memory.take<float>(4 * 32);
  const int i = static_cast<int>(threadIdx.x) * 4;
  cuda::copy_async<float>(tile, i, in, i, i < 64);
  cuda::commit_copies();
  if (wait) cuda::wait_copies<0>();
  __syncthreads();
  for (int k = 0; k < 4; ++k) out[i + k] = tile[127 - i - k];
}

TEST(Emulator, AsynchronousCopiesArriveWhenWaitedFor) {
  std::vector<float> values(64);
  for (std::size_t i = 0; i < 64; ++i) values[i] = static_cast<float>(i + 1);
  const Buffer in(values), out(128);
  const Span<const float> from(in.span().address(0, 64), 64);
  const cuda::LaunchShape shape{dim3(1), dim3(32), cuda::shared_bytes_of<float>(128)};
  cuda::launch("async", shape, async_kernel, from, out.span(), true);
  const auto got = out.values();
  for (std::size_t i = 0; i < 128; ++i) EXPECT_EQ(got[127 - i], i < 64 ? values[i] : 0.0f);
  EXPECT_TRUE(
      throws_with([&] { cuda::launch("async", shape, async_kernel, from, out.span(), false); },
                  {"async", "to which a copy of thread 0 is under way"}));
}

/// Every thread reads what its neighbour's copy will overwrite.
__global__ void refill_kernel(Span<const float> in, Span<float> out, bool barrier) {
  SharedMemory memory;
  const auto tile = memory.take<float>(4 * 32);
  const int i = static_cast<int>(threadIdx.x) * 4;
  for (int k = 0; k < 4; ++k) tile[i + k] = 1.0f;
  __syncthreads();
  out[i] = tile[(i + 4) % 128];
  if (barrier) __syncthreads();
  cuda::copy_async<float>(tile, i, in, i, i < 64);
  cuda::commit_copies();
  cuda::wait_copies<0>();
}

TEST(Emulator, ReportsACopyOverWhatOthersRead) {
  const Buffer in(std::vector<float>(64, 2.0f)), out(128);
  const Span<const float> from(in.span().address(0, 64), 64);
  const cuda::LaunchShape shape{dim3(1), dim3(32), cuda::shared_bytes_of<float>(128)};
  EXPECT_NO_THROW(cuda::launch("refill", shape, refill_kernel, from, out.span(), true));
  EXPECT_TRUE(
      throws_with([&] { cuda::launch("refill", shape, refill_kernel, from, out.span(), false); },
                  {"refill", "race: writes shared memory that thread"}));
}

// --- what must be caught ----------------------------------------------------------------------

__global__ void past_the_end_kernel(Span<float> out) {
  out[static_cast<std::int64_t>(blockIdx.x) * 32 + threadIdx.x] = 1.0f;
}

TEST(Emulator, ReportsGlobalMemoryOutOfRange) {
  const Buffer out(63);
  EXPECT_TRUE(throws_with(
      [&] {
        run({dim3(2), dim3(32)}, past_the_end_kernel, out.span());
      },
      {"test kernel", "block (1, 0, 0)", "thread (31, 0, 0)", "index 63 of 63 elements"}));
}

__global__ void misaligned_kernel(Span<float> out) {
  const auto pack = out.load<4>(2);
  out.store<4>(0, pack);
}

TEST(Emulator, ReportsMisalignedVectorLoads) {
  const Buffer out(64);
  EXPECT_TRUE(throws_with(
      [&] {
        run({dim3(1), dim3(32)}, misaligned_kernel, out.span());
      },
      {"not aligned to 16 bytes"}));
}

__global__ void shared_range_kernel(int index) {
  SharedMemory memory;
  const auto tile = memory.take<float>(32);
  tile[static_cast<int>(threadIdx.x) + index] = 1.0f;
}

TEST(Emulator, ReportsSharedMemoryOutOfRange) {
  EXPECT_TRUE(throws_with(
      [&] {
        run({dim3(1), dim3(32), 128}, shared_range_kernel, 1);
      },
      {"thread (31, 0, 0)", "shared memory: index 32 of 32"}));
  EXPECT_TRUE(throws_with(
      [&] {
        run({dim3(1), dim3(32), 127}, shared_range_kernel, 0);
      },
      {"takes 128 bytes of shared memory at 0, the launch gave 127"}));
}

__global__ void no_barrier_kernel(Span<float> out, bool barrier) {
  SharedMemory memory;
  const auto tile = memory.take<float>(64);
  tile[static_cast<int>(threadIdx.x)] = 1.0f;
  if (barrier) __syncthreads();
  out[threadIdx.x] = tile[63 - static_cast<int>(threadIdx.x)];
}

TEST(Emulator, ReportsAMissingBarrier) {
  const Buffer out(64);
  const cuda::LaunchShape shape{dim3(2), dim3(64), 256};
  EXPECT_NO_THROW(run(shape, no_barrier_kernel, out.span(), true));
  EXPECT_TRUE(throws_with([&] { run(shape, no_barrier_kernel, out.span(), false); },
                          {"no thread of the block has written"}));
}

/// Reads what its neighbour wrote, then overwrites its own: needs two barriers.
__global__ void overwrite_kernel(Span<float> out, bool barrier) {
  SharedMemory memory;
  const auto tile = memory.take<float>(64);
  const int i = static_cast<int>(threadIdx.x);
  tile[i] = 1.0f;
  __syncthreads();
  const float other = tile[i == 63 ? 0 : i + 1];
  if (barrier) __syncthreads();
  tile[i] = 2.0f;
  out[i] = other;
}

TEST(Emulator, ReportsAMissingBarrierBeforeAnOverwrite) {
  const Buffer out(64);
  const cuda::LaunchShape shape{dim3(1), dim3(64), 256};
  EXPECT_NO_THROW(run(shape, overwrite_kernel, out.span(), true));
  EXPECT_TRUE(throws_with([&] { run(shape, overwrite_kernel, out.span(), false); }, {"race"}));
}

__global__ void warp_order_kernel(Span<float> out, bool sync) {
  SharedMemory memory;
  const auto tile = memory.take<float>(64);
  const int i = static_cast<int>(threadIdx.x);
  tile[i] = static_cast<float>(i);
  __syncthreads();
  tile[i] = 5.0f;
  if (sync) __syncwarp();
  out[i] = tile[i ^ 1];
}

TEST(Emulator, SyncwarpOrdersAWarpAndNoMore) {
  const Buffer out(64);
  EXPECT_NO_THROW(run({dim3(1), dim3(64), 256}, warp_order_kernel, out.span(), true));
  EXPECT_TRUE(throws_with(
      [&] {
        run({dim3(1), dim3(64), 256}, warp_order_kernel, out.span(), false);
      },
      {"race"}));
}

__global__ void divergent_kernel(int last) {
  if (static_cast<int>(threadIdx.x) < last) __syncthreads();
}
__global__ void two_barriers_kernel() {
  if (threadIdx.x < 16)
    __syncthreads();
  else
    __syncthreads();
}
__global__ void lonely_shuffle_kernel(Span<float> out) {
  if (threadIdx.x == 3) return;
  out[threadIdx.x] = __shfl_xor_sync(kAllLanes, 1.0f, 1);
}

TEST(Emulator, ReportsDivergence) {
  EXPECT_TRUE(throws_with(
      [&] {
        run({dim3(1), dim3(64)}, divergent_kernel, 40);
      },
      {"divergence", "waits at the barrier emulator_test.cpp",
       "thread (40, 0, 0) "
       "has returned"}));
  EXPECT_NO_THROW(run({dim3(1), dim3(64)}, divergent_kernel, 64));
  EXPECT_TRUE(throws_with([&] { run({dim3(1), dim3(32)}, two_barriers_kernel); }, {"divergence"}));
  const Buffer out(32);
  EXPECT_TRUE(throws_with(
      [&] {
        run({dim3(1), dim3(32)}, lonely_shuffle_kernel, out.span());
      },
      {"divergence", "waits in a shuffle", "thread (3, 0, 0) has returned"}));
  EXPECT_TRUE(throws_with(
      [&] {
        run({dim3(1), dim3(48)}, lonely_shuffle_kernel, out.span());
      },
      {"a shuffle"}));
}

TEST(Emulator, RefusesLaunchesThatNoGpuTakes) {
  EXPECT_TRUE(throws_with([&] { run({dim3(1), dim3(1025)}, two_barriers_kernel); }, {"no GPU"}));
  EXPECT_TRUE(throws_with(
      [&] {
        run({dim3(1, 65536), dim3(32)}, two_barriers_kernel);
      },
      {"no GPU"}));
}

TEST(Emulator, WorksOnAfterAnError) {
  const Buffer out(32);
  EXPECT_ANY_THROW(run({dim3(1), dim3(64)}, divergent_kernel, 40));
  run({dim3(1), dim3(32)}, votes_kernel, out.span());
  EXPECT_EQ(out.values(), std::vector<float>(32, 1.0f));
}

TEST(EmulatorDeathTest, StopsHostCodeThatFollowsADevicePointer) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  register_cuda();
  const Tensor tensor = Tensor::zeros({4}, DType::f32, Device{DeviceType::cuda, 0});
  EXPECT_DEATH(tensor.data<float>()[0] = 1.0f, "host code touched device memory");
}

}  // namespace
}  // namespace lectern
