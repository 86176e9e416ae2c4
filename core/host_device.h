// Marks the inline functions of *_math.h that CPU and CUDA kernels share. Empty outside nvcc.
#pragma once

#if defined(__CUDACC__)
#define LECTERN_HOST_DEVICE __host__ __device__
#else
#define LECTERN_HOST_DEVICE
#endif
