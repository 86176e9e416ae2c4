// The emulator: runs a CUDA kernel that was compiled for the host.
//
// Blocks run one after the other, the threads of a block as fibers: each runs until it waits at a
// barrier or for its warp. Even blocks are run in ascending order of threads and odd ones in
// descending order, so that code which leans on an order fails. What a GPU leaves undefined is an
// EmulationError here, naming kernel, block and thread:
//   * global memory outside the tensor, misaligned vector loads (Span, cuda/device_code.h)
//   * shared memory outside the array, never written, or shared by two threads, one of which
//     writes, with neither a barrier nor (in one warp) __syncwarp between; or touched while an
//     asynchronous copy to it is under way
//   * a barrier that not all threads reach, or reach at different places; a warp operation some
//   lane
//     of its mask never joins; a shuffle from a lane outside the mask
//   * host code that touches device memory (device_memory.h): the process stops with a message
// What it cannot see: races in global memory, and anything that depends on timing.
#pragma once

#include "core/error.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace lectern::emulation {

class EmulationError : public Error {
  using Error::Error;
};

struct Site {
  const char* file;
  int line;
};

/// What the running thread sees as threadIdx, blockIdx, blockDim and gridDim.
struct Indices {
  dim3 thread, block, block_size, grid_size;
};
inline Indices now;

/// Throws EmulationError with the running thread's kernel, block and thread in front.
[[noreturn]] void report(const std::string& what);

void block_barrier(Site site);

/// What lanes of a warp do together. All lanes of `mask` must come with the same kind; the last one
/// calls complete(arguments by lane, mask).
enum class Collective { sync, shuffle, vote, multiply_tile, load_matrices };
void warp_collective(unsigned mask, Collective kind, void* argument,
                     const std::function<void(void* const* arguments, unsigned mask)>& complete,
                     Site site);
int lane();

/// begin_copy: an asynchronous copy to it was started; its end is a write.
enum class Access { read, write, atomic, begin_copy };
/// Notes an access to the shared memory of the block; reports races and reads of nothing.
void touch_shared(const void* element, Access access);
/// The block's dynamic shared memory: its next `bytes` from `offset`.
void* shared_memory(std::size_t offset, std::size_t bytes);

/// One asynchronous copy of the running thread; done when the thread waits for its group.
void queue_copy(std::function<void()> copy);
void commit_copies();
void wait_copies(int groups_left);

struct Launch {
  dim3 grid, block;
  std::size_t shared_bytes = 0;
  const void* kernel = nullptr;
};
/// Runs `body` once a thread. Throws the first EmulationError.
void run(const Launch& launch, const std::function<void()>& body);

/// Names the kernels that are launched while it is on the stack; the innermost counts.
void push_name(const char* name);
void pop_name();
/// Kernels run so far, for tests that ask whether one ran.
std::int64_t launches();

}  // namespace lectern::emulation
