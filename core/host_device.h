// Words for the inline functions of *_math.h that CPU and CUDA kernels share.
#pragma once

/// Marks such a function. LECTERN_UNROLL before a loop with a constant number of turns writes all
/// of them out, so that arrays indexed by its counter stay in registers.
#if defined(__CUDACC__)
#define LECTERN_HOST_DEVICE __host__ __device__
#define LECTERN_UNROLL _Pragma("unroll")
#else
#define LECTERN_HOST_DEVICE
#define LECTERN_UNROLL _Pragma("GCC unroll 64")
#endif
