// rows: a matrix made of rows of other matrices, by number.
//
//   y[i, :] = sources[index[i, 0]][index[i, 1], :]
//
// sources  S tensors [R_s, C] f32 or f64, one dtype (token embeddings, image features, separator);
//          bf16 is widened and may stand beside f32 (forward only)
// index    [n, 2] i32, (source, row), on the CPU; repeats allowed, rows may go unused
// output   [n, C], dtype of the sources (f32 when they are bf16); empty when n or C is 0
//
// Gradient of source s: zeros [R_s, C] with grad_output[i] added to row index[i, 1] for every i of
// that source, in ascending i whatever the number of threads (threads split the columns).
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

#include <cstdint>
#include <vector>

namespace lectern {

/// Throws ShapeError when a source is not a matrix of the common width, there is none, index is not
/// [n, 2], or a number in it is out of range (naming its position and value); DTypeError for other
/// dtypes. Strided inputs are copied.
Tensor select_rows(const std::vector<Tensor>& sources, const Tensor& index);

/// Gradient [rows, C] of source number `source` from grad_output [n, C] and the forward's index.
Tensor select_rows_backward(const Tensor& grad_output, const Tensor& index, std::int32_t source,
                            std::int64_t rows);

/// Index [n, 2] (0, id) for looking `ids` (i32 or i64, any shape, n elements) up in one table of
/// `rows` rows. Throws ShapeError naming position and value of an id outside 0..rows-1.
Tensor embedding_index(const Tensor& ids, std::int64_t rows);

struct RowsKernels {
  void (*select)(const std::vector<Tensor>& sources, const Tensor& index, const Tensor& out);
  /// Overwrites grad_source.
  void (*select_backward)(const Tensor& grad_output, const Tensor& index, std::int32_t source,
                          const Tensor& grad_source);
};
KernelTable<RowsKernels>& rows_table();

}  // namespace lectern
