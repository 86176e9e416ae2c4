#include "data/tokenizer/pre_tokenizer.h"

#include "data/text/utf8.h"

#include <algorithm>

namespace lectern {
namespace {

using Span = PreTokenizer::Scratch::Span;

// Matches and the stretches between them, in order. An empty match right after a match is skipped,
// as Oniguruma's iterator does.
void find_spans(std::string_view piece, const Regex& pattern, PreTokenizer::Scratch& scratch) {
  scratch.spans.clear();
  std::size_t from = 0, covered = 0;
  bool any = false;
  Regex::Match match{};
  while (from <= piece.size() && pattern.find(piece, from, match, scratch.regex)) {
    if (match.begin == match.end && any && match.end == covered) {
      if (from == piece.size()) break;
      from += code_point(piece, from).bytes;
      continue;
    }
    if (match.begin > covered) scratch.spans.push_back({covered, match.begin, false});
    scratch.spans.push_back({match.begin, match.end, true});
    from = covered = match.end;
    any = true;
  }
  if (covered < piece.size()) scratch.spans.push_back({covered, piece.size(), false});
}

// Joins spans into pieces: each span either extends the piece before it or starts one.
void merge_spans(std::vector<Span>& spans, SplitBehavior behavior) {
  if (behavior == SplitBehavior::merged_with_next) std::reverse(spans.begin(), spans.end());
  std::vector<Span> merged;
  bool previous = false;
  for (const Span& span : spans) {
    const bool joins =
        behavior == SplitBehavior::contiguous ? span.match == previous : span.match && !previous;
    if (joins && !merged.empty()) {
      merged.back().begin = std::min(merged.back().begin, span.begin);
      merged.back().end = std::max(merged.back().end, span.end);
    } else {
      merged.push_back(span);
    }
    previous = span.match;
  }
  if (behavior == SplitBehavior::merged_with_next) std::reverse(merged.begin(), merged.end());
  spans.swap(merged);
}

}  // namespace

const std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

void PreTokenizer::split(std::string_view text, Scratch& scratch) const {
  scratch.pieces.clear();
  scratch.prefixed.clear();
  if (!text.empty()) scratch.pieces.push_back(text);
  for (const PreTokenizerStep& step : steps_) {
    scratch.cut.clear();
    for (std::string_view piece : scratch.pieces) {
      if (step.add_prefix_space && !piece.starts_with(' '))
        piece = scratch.prefixed.emplace_back(" " + std::string(piece));
      if (!step.pattern) {
        scratch.cut.push_back(piece);
        continue;
      }
      find_spans(piece, *step.pattern, scratch);
      if (step.invert)
        for (Span& span : scratch.spans) span.match = !span.match;
      const bool removes = step.behavior == SplitBehavior::removed;
      if (!removes && step.behavior != SplitBehavior::isolated)
        merge_spans(scratch.spans, step.behavior);
      for (const Span& span : scratch.spans)
        if (span.end > span.begin && !(removes && span.match))
          scratch.cut.push_back(piece.substr(span.begin, span.end - span.begin));
    }
    scratch.pieces.swap(scratch.cut);
  }
}

}  // namespace lectern
