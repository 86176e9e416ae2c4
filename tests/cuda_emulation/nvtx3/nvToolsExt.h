// Stands in for NVTX: the names of ranges say which kernel an emulation error came from.
#pragma once

#include "tests/cuda_emulation/emulator.h"

inline int nvtxRangePushA(const char* name) {
  lectern::emulation::push_name(name);
  return 0;
}
inline int nvtxRangePop() {
  lectern::emulation::pop_name();
  return 0;
}
