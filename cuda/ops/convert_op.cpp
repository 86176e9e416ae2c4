#include "core/ops/convert.h"
#include "cuda/ops/convert.h"
#include "cuda/ops/register_ops.h"

namespace lectern::cuda {

void register_convert() { convert_table().set(DeviceType::cuda, {convert_strided}); }

}  // namespace lectern::cuda
