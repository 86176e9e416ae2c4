// The row of a cross-entropy, shared by cross_entropy and linear_cross_entropy.
#pragma once

#include "core/cpu/vector_math.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace lectern {

template <typename T>
inline T row_maximum(const T* row, std::int64_t n) {
  T largest = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : largest)
  for (std::int64_t i = 0; i < n; ++i) largest = std::max(largest, row[i]);
  return largest;
}

/// log(sum(exp(row)))
template <typename T>
inline T log_sum_exp(const T* row, std::int64_t n) {
  const T largest = row_maximum(row, n);
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) sum += fast_exp(row[i] - largest);
  return largest + std::log(sum);
}

/// row[i] <- softmax(row)[i]; returns log(sum(exp(row))).
template <typename T>
inline T softmax_in_place(T* row, std::int64_t n) {
  const T largest = row_maximum(row, n);
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) {
    row[i] = fast_exp(row[i] - largest);
    sum += row[i];
  }
  const T inverse = T{1} / sum;
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) row[i] *= inverse;
  return largest + std::log(sum);
}

}  // namespace lectern
