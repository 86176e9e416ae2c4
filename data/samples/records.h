// What sources are made of, to say of a run's data what nobody would notice: pieces that filters
// left out, and held-out text that is trained on, too.
#pragma once

#include "data/samples/source.h"
#include "data/shards/shard_set.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace lectern {

/// Calls visit for each record of the shards.
void visit_records(const ShardSet& shards, const std::function<void(const SourceRecord&)>& visit);
/// Calls visit for each text file.
void visit_files(const std::vector<std::filesystem::path>& files,
                 const std::function<void(const SourceRecord&)>& visit);

/// What two lists of sources have in common.
struct SharedRecords {
  std::int64_t records = 0;                  ///< of the held-out sources
  std::int64_t same_text = 0;                ///< of these, whose text a training source has
  std::vector<std::string> documents;        ///< of the held-out sources that training has by name
  std::vector<std::string> texts_documents;  ///< documents of the records with the same text
};

/// Compares held-out sources with those that are trained on, by the names of documents and by the
/// texts of records (white space aside). Reads all held-out texts, and of the training ones those
/// that are about as long.
SharedRecords shared_records(const std::vector<std::shared_ptr<const SampleSource>>& training,
                             const std::vector<std::shared_ptr<const SampleSource>>& held_out);

/// For the start of a run: one sentence, "" when nothing is shared.
std::string wording(const SharedRecords& shared);

}  // namespace lectern
