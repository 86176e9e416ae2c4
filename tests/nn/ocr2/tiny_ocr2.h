// The tiny model as its own family knows it.
#pragma once

#include "nn/ocr2/model.h"
#include "tests/nn/tiny_model.h"

namespace lectern::testing {

inline Ocr2Config tiny_ocr2_config() {
  return dynamic_cast<const Ocr2Config&>(static_cast<const ModelConfig&>(tiny_model_config()));
}

}  // namespace lectern::testing
