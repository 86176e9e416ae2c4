#include "autograd/ops/rows.h"

#include "autograd/ops/layout.h"
#include "core/ops/rows.h"

namespace lectern {

Variable select_rows(const std::vector<Variable>& sources, const Tensor& index) {
  std::vector<Tensor> values;
  std::vector<std::int64_t> rows;  // of each source that wants a gradient, else -1
  for (const Variable& source : sources) {
    values.push_back(source.value());
    rows.push_back(source.requires_grad() && source.value().ndim() == 2 ? source.dim(0) : -1);
  }
  return record("select_rows", select_rows(values, index), sources,
                [index, rows = std::move(rows)](const Tensor& grad) {
                  std::vector<Tensor> grads(rows.size());
                  for (std::size_t s = 0; s < rows.size(); ++s)
                    if (rows[s] >= 0)
                      grads[s] =
                          select_rows_backward(grad, index, static_cast<std::int32_t>(s), rows[s]);
                  return grads;
                });
}

Variable embedding(const Variable& table, const Tensor& ids) {
  check_ndim(table.value(), 2, "embedding", "table");
  Shape shape = ids.shape();
  shape.push_back(table.dim(1));
  return view(select_rows({table}, embedding_index(ids, table.dim(0))), shape);
}

}  // namespace lectern
