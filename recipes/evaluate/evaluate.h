// Reading held-out samples and scoring what was read.
#pragma once

#include "data/samples/sample.h"
#include "recipes/evaluate/score.h"
#include "recipes/read/reader.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lectern {

struct EvaluationArgs {
  std::int64_t samples = 64;
  std::uint64_t seed = 0;  ///< which samples; the same seed reads the same ones
  bool with_loss = false;
  int rank = 0, ranks = 1;  ///< of the samples 0, 1, ... read those with index % ranks == rank
  bool by_pieces = false;   ///< whole pages are read piece by piece (recipes/read/piece_reader.h)
  ReaderArgs reader;
};

struct ReadSample {
  std::string name;  ///< the sample's key
  std::string document;
  std::string truth, read;
  Image picture;  ///< global view; of a page that is read by pieces the page
};

struct EvaluationResult {
  Scores scores;
  double loss =
      0;  ///< mean over the tokens of all answers, each predicted from the true ones before
  double loss_sum = 0;
  std::int64_t trained_tokens = 0;  ///< of all answers
  std::vector<ReadSample> samples;
  double seconds = 0;
  double tokens_per_second = 0;  ///< decoded, the first token of each sample aside
};

/// Scores of each document, ascending by name.
std::vector<std::pair<std::string, Scores>> scores_by_document(const EvaluationResult& result);

/// Generates the text of `samples` samples (all when there are fewer) and scores it; with
/// args.with_loss also the loss. Records no graph. The training loop, `lectern eval` and the tests
/// all call this. With args.by_pieces, pages get the resolution that the model's configuration
/// names, and with_loss must be off (ConfigError).
EvaluationResult evaluate(const OcrModel& model, const Tokenizer& tokenizer,
                          const SampleSet& samples, const EvaluationArgs& args,
                          const std::function<void(std::int64_t)>& progress = {});

}  // namespace lectern
