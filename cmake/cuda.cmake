# Looks for nvcc and, where it is, makes CUDA a language of this build.
option(LECTERN_CUDA "Build the CUDA kernels where nvcc is found" ON)
set(LECTERN_CUDA_ARCHITECTURES "80;90a-real" CACHE STRING "GPU architectures of the CUDA kernels")

find_program(NVCC nvcc HINTS ENV CUDA_HOME PATHS /usr/local/cuda/bin)
set(LECTERN_HAS_CUDA OFF)
if(LECTERN_CUDA AND NVCC)
  set(LECTERN_HAS_CUDA ON)
endif()
message(STATUS "CUDA kernels: ${LECTERN_HAS_CUDA}")

if(LECTERN_HAS_CUDA)
  set(CMAKE_CUDA_COMPILER ${NVCC})
  set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
  set(CMAKE_CUDA_ARCHITECTURES ${LECTERN_CUDA_ARCHITECTURES})
  if(CCACHE)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  # CMake 3.25 does not know yet that nvcc speaks C++20.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()

# Several ranks with a GPU each. Not required: such a build says what it lacks.
option(LECTERN_NCCL "Use NCCL, for many ranks with GPUs, where nvcc and nccl.h are found" ON)
find_path(NCCL_INCLUDE_FOLDER nccl.h HINTS ENV CUDA_HOME PATHS /usr/local/cuda/include)
find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ENV CUDA_HOME PATHS /usr/local/cuda/lib64)
set(LECTERN_HAS_NCCL OFF)
if(LECTERN_HAS_CUDA AND LECTERN_NCCL AND NCCL_INCLUDE_FOLDER AND NCCL_LIBRARY)
  set(LECTERN_HAS_NCCL ON)
endif()
message(STATUS "NCCL: ${LECTERN_HAS_NCCL}")
