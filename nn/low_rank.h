// A low-rank update of a published matrix (LoRA, arXiv 2106.09685).
#pragma once

#include "autograd/variable.h"

#include <vector>

namespace lectern {

/// W + scale B A in place of W [rows, columns].
struct LowRankPair {
  Variable a;  ///< [rank, columns] f32
  Variable b;  ///< [rows, rank] f32
  double scale = 1.0;

  bool defined() const { return a.defined(); }
};

/// One place for each part of a parameter; undefined: none.
using LowRankPairs = std::vector<LowRankPair>;

}  // namespace lectern
