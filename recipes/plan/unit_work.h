// What a micro-batch costs in each unit of the model (nn/model_config.h), counted from shapes
// alone: operations, memory that it leaves for backward, and what goes on to the next unit.
//
// Operations are those of matrix products, convolutions and attention, 2 for a multiplication and
// an addition; whatever lies between them is in the share of the peak rate that products are said
// to reach. Masked attention counts what the mask leaves.
#pragma once

#include "nn/model_config.h"

#include <cstdint>
#include <string>
#include <vector>

namespace lectern {

/// One page, and how many of them a micro-batch has.
struct PageShape {
  std::int64_t crops = 0;        ///< local tiles beside the global view
  std::int64_t text_tokens = 0;  ///< prompt, answer, begin and end; all but the image
  std::vector<std::int64_t> global_sizes = {1024};  ///< pixels a side; several: they take turns
  std::int64_t tile_size = 768;
  bool has_image = true;  ///< false: text alone

  /// Rows of the decoder, the mean where several sizes take turns.
  double tokens(const ModelConfig& config) const;
};

struct UnitWork {
  std::string name;
  std::int64_t parameters = 0;
  std::int64_t expert_parameters = 0;   ///< of them in routed experts
  std::int64_t trained_parameters = 0;  ///< of all that are not frozen
  std::int64_t trained_experts = 0;     ///< of them in routed experts
  std::int64_t largest_parameter = 0;   ///< trained, elements
  bool has_backward = false;            ///< it or a unit before it trains
  double forward = 0;                   ///< operations
  double backward = 0;                  ///< operations, without what recomputation repeats
  double stream_bytes = 0;              ///< moved by residual streams in a forward pass
  double shared = 0;  ///< operations of the shared experts, which hide a dispatch; of `forward`
  double routed_rows = 0;   ///< (token, choice) pairs of its routed experts
  double width = 0;         ///< numbers in such a row
  double input_bytes = 0;   ///< f32, streams included: what recomputation keeps
  double kept_bytes = 0;    ///< f32, what backward needs without recomputation; an estimate
  double block_bytes = 0;   ///< of kept_bytes, those of one block: alive while it runs
  double output_bytes = 0;  ///< f32, handed to the next unit
};

/// Of a micro-batch of `pages` pages, with the parameters under `frozen` prefixes not trained.
std::vector<UnitWork> count_units(const ModelConfig& config, const PageShape& page, double pages,
                                  const std::vector<std::string>& frozen);

}  // namespace lectern
