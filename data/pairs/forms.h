// The forms that records of JSON come in. Private to this room.
#pragma once

#include "data/pairs/item.h"

#include <nlohmann/json_fwd.hpp>

namespace lectern::detail {

/// Fills form, name, prompt, answer, kind, group and notes of an item from one of
///   {"image": path, "text": answer, "prompt": question}, the first and last left out as one likes;
///   {"messages": [{"role", "content"}], "images": [path]};
///   {"conversations": [{"from", "value"}], "image": path}.
/// What cannot be used is item.unusable.
void read_form(const nlohmann::json& record, const FormOptions& options, PairItem& item);

}  // namespace lectern::detail
