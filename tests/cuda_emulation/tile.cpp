// The tile instructions, multiplied plainly. The fragment layouts are those of the PTX manual
// (mma.m16n8k16 with .bf16, ldmatrix .m8n8.x4), written down a second time and on their own.
#include "tests/cuda_emulation/cuda/device_code.h"

namespace lectern::cuda {
namespace {

constexpr int kRows = 16, kColumns = 8, kDepth = 16;

float half_of(std::uint32_t part, int i) {
  return std::bit_cast<float>((i == 0 ? part << 16 : part & 0xffff0000u));
}

struct MultiplyArgument {
  TileC* c;
  const TileA* a;
  const TileB* b;
};

void multiply_plainly(void* const* arguments, unsigned mask) {
  if (mask != kAllLanes) emulation::report("multiply_tile needs all 32 lanes");
  float a[kRows][kDepth], b[kDepth][kColumns];
  for (int lane = 0; lane < kWarp; ++lane) {
    const auto* argument = static_cast<const MultiplyArgument*>(arguments[lane]);
    const int group = lane >> 2, thread = lane & 3;
    for (int i = 0; i < 8; ++i) {
      const int row = group + ((i >> 1) % 2) * 8, column = thread * 2 + (i & 1) + (i >> 2) * 8;
      a[row][column] = half_of(argument->a->parts[i >> 1], i & 1);
    }
    for (int i = 0; i < 4; ++i)
      b[thread * 2 + (i & 1) + (i >> 1) * 8][group] = half_of(argument->b->parts[i >> 1], i & 1);
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    const auto* argument = static_cast<const MultiplyArgument*>(arguments[lane]);
    for (int i = 0; i < 4; ++i) {
      const int row = (lane >> 2) + (i >> 1) * 8, column = (lane & 3) * 2 + (i & 1);
      float sum = argument->c->sums[i];
      for (int k = 0; k < kDepth; ++k) sum += a[row][k] * b[k][column];
      argument->c->sums[i] = sum;
    }
  }
}

struct LoadArgument {
  std::uint32_t* parts;
  const BFloat16* row;
  bool transposed;
};

void load_plainly(void* const* arguments, unsigned mask) {
  if (mask != kAllLanes) emulation::report("load_matrices needs all 32 lanes");
  for (int lane = 0; lane < kWarp; ++lane) {
    const auto* argument = static_cast<const LoadArgument*>(arguments[lane]);
    const int group = lane >> 2, pair = (lane & 3) * 2;
    for (int matrix = 0; matrix < 4; ++matrix) {
      const auto element = [&](int row, int column) -> std::uint32_t {
        return static_cast<const LoadArgument*>(arguments[matrix * 8 + row])->row[column].bits;
      };
      argument->parts[matrix] = argument->transposed
                                    ? element(pair, group) | element(pair + 1, group) << 16
                                    : element(group, pair) | element(group, pair + 1) << 16;
    }
  }
}

}  // namespace

void multiply_tile(TileC& c, const TileA& a, const TileB& b, emulation::Site site) {
  MultiplyArgument mine{&c, &a, &b};
  emulation::warp_collective(kAllLanes, emulation::Collective::multiply_tile, &mine,
                             multiply_plainly, site);
}

void load_matrices_of_warp(std::uint32_t (&parts)[4], const BFloat16* row, bool transposed,
                           emulation::Site site) {
  LoadArgument mine{parts, row, transposed};
  emulation::warp_collective(kAllLanes, emulation::Collective::load_matrices, &mine, load_plainly,
                             site);
}

}  // namespace lectern::cuda
