// A picture of one step of a pipeline: what each stage did when.
#pragma once

#include "distributed/communicator.h"
#include "distributed/pipeline_schedule.h"

#include <string>
#include <vector>

namespace lectern {

/// The spans of all stages, in order of stage, on every rank of `stages`. Collective.
std::vector<PipelineSpan> gather_spans(Communicator& stages, const std::vector<PipelineSpan>& here);

/// SVG: a row a stage, a box a task with the number of its micro-batch (and chunk, when there are
/// several); forwards blue, backwards green, waiting white; milliseconds below.
std::string timeline_svg(const std::vector<PipelineSpan>& spans);

}  // namespace lectern
