// What the two kernels of stream_read share: a block has kTileTokens tokens, goes along their
// streams with all its warps, and turns products into coefficients with one thread a token.
#pragma once

#include "core/ops/stream_read.h"
#include "cuda/collective.h"
#include "cuda/launch.h"
#include "cuda/ops/sinkhorn_thread.h"
#include "cuda/vectors.h"

namespace lectern::cuda {

inline constexpr int kTileTokens = 16;

/// Sizes of one call. With the mapping hc a token has `norms` = n rows of x for the projection,
/// each of `length` = C numbers; else one of n C.
struct StreamSizes {
  StreamMappingRule rule;
  int iterations;
  std::int64_t tokens, width;  ///< width is C
  int rows;                    ///< of the projection
  int norms, raw;              ///< of a token; raw = rows * norms products
  std::int64_t length;         ///< of a row of the projection
  bool packs;                  ///< loads of 16 bytes are possible

  StreamSizes(const Tensor& x, const StreamReadArgs& args, bool aligned)
      : rule(args.rule()),
        iterations(static_cast<int>(args.iterations)),
        width(x.dim(-1)),
        rows(stream_math::projection_rows(args.mapping, static_cast<int>(x.dim(-2)))),
        norms(stream_math::norm_count(args.mapping, static_cast<int>(x.dim(-2)))),
        raw(rows * norms),
        length(args.mapping == StreamMapping::hc ? width : width * x.dim(-2)),
        packs(aligned && width % kWidest<float> == 0) {
    tokens = x.numel() / (x.dim(-2) * width);
  }

  std::int64_t tiles() const { return ceil_divide(tokens, kTileTokens); }
  __device__ int tile_tokens(std::int64_t first) const {
    return tokens - first < kTileTokens ? static_cast<int>(tokens - first) : kTileTokens;
  }
};

/// Part of global memory, indexed from its own beginning.
struct SpanPart {
  Span<const float> from;
  std::int64_t begin;
  __device__ float operator[](int i) const { return from[begin + i]; }
};

}  // namespace lectern::cuda
