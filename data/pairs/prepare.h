// An item of an input -> records of a shard. Private to this room.
#pragma once

#include "data/pairs/builder.h"
#include "data/pairs/item.h"
#include "data/shards/shard.h"
#include "data/tokenizer/tokenizer.h"

#include <string>
#include <vector>

namespace lectern::detail {

/// A record, or why there is none.
struct PreparedPair {
  ShardPage record;
  std::int64_t page = 0;  // of a PDF that has several; else 0
  UnusableItem unusable;
};

/// Reads the item's picture and answer; a PDF of several pages gives a record for each, when its
/// text has as many parts, which a line --- between empty lines or a form feed parts. `id` begins
/// the records' ids. Functions of any number of threads may run at once.
std::vector<PreparedPair> prepare_item(const PairItem& item, const std::string& id,
                                       const std::string& source, const std::string& document,
                                       const PairBuildOptions& options, const Tokenizer& tokenizer);

}  // namespace lectern::detail
