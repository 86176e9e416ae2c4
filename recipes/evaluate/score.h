// How well a page was read: edit distance, character error rate, word sets, repetition.
//
// Text is compared as Unicode code points, exactly as given (white space and case count; what is
// not UTF-8 counts as U+FFFD). Of files, what only their storage is does not count: a byte order
// mark, the kind of line end (CR LF is LF), line ends at the very end. `normalize_text` makes the
// usual allowances before scoring. The formulas are those of OmniDocBench (text score) and Fox
// (word sets).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// NFKC (full-width letters become half-width, ligatures letters), each run of white space one
/// space, none at the ends.
std::string normalize_text(std::string_view utf8);

/// Words of the Fox measure: parted by Unicode white space; each Han or kana character is a word by
/// itself (Fox segments with jieba, which a framework cannot ask users to install).
std::vector<std::u32string> words(std::u32string_view text);

/// Code points at the end of `text` that repeat with one period, 0 when the end does not loop.
/// A loop: for a period p, the last L >= max(4 p, 32) code points satisfy t[i] = t[i - p], so that
/// a piece of text stands there at least four times in a row, up to the very end. Runs of white
/// space are taken as one space first.
std::int64_t looping_tail(std::u32string_view text);

/// One page. `edits` is the Levenshtein distance, lengths are in code points.
struct PageScore {
  std::string name;
  bool missing = false;  // no prediction: taken as empty
  std::string problem;   // why the prediction, which is there, was taken as empty too; or ""
  std::int64_t edits = 0, predicted_length = 0, truth_length = 0;
  double edit_distance = 0;  // edits / max(lengths); 0 when both are empty
  double cer = 0;  // edits / truth length; with an empty truth 0 if nothing was read, else 1
  double precision = 0, recall = 0, f1 = 0;  // word sets; 1 when both sets are empty
  bool repeats = false;                      // the prediction's end loops and the truth's does not
};

PageScore score_page(std::string_view predicted, std::string_view truth);

/// A set of pages. Means are over pages, each page counting the same.
struct Scores {
  std::vector<PageScore> pages;
  double edit_distance = 0;                  // mean of the pages' (OmniDocBench ALL_page_avg)
  double edit_distance_corpus = 0;           // sum of edits / sum of max(lengths)
  double cer = 0;                            // sum of edits / sum of truth lengths
  double cer_mean = 0;                       // mean of the pages'
  double precision = 0, recall = 0, f1 = 0;  // means
  double repetition_rate = 0;                // pages that loop / pages
  std::int64_t exact = 0;                    // pages read without an error
  std::int64_t missing = 0;
};

/// Aggregates; all zero for no pages.
Scores summarize(std::vector<PageScore> pages);

/// What score_folders compares.
struct ScoreOptions {
  bool normalize = false;  // apply normalize_text to both sides
};

/// A file's text without what belongs to its storage (see above). Throws IoError when the file
/// cannot be read or is UTF-16 or UTF-32.
std::string read_text_file(const std::filesystem::path& path);

/// Scores every .md or .txt of `truth` (suffix in small letters or capitals; .md first where a stem
/// has both) against the file of that stem in `predicted`, in order of stem. Stems are the same
/// when their bytes are, or else their normal forms (NFC; some file systems store NFD). A page
/// without a prediction counts as read empty, and so does one whose prediction cannot be read or
/// compared (over 2^42 pairs of code points where both differ, minutes): PageScore::problem. Throws
/// IoError when a folder is missing, `truth` has no pages or one that cannot be read; predictions
/// without a truth are returned in `extra`.
Scores score_folders(const std::filesystem::path& predicted, const std::filesystem::path& truth,
                     const ScoreOptions& options, std::vector<std::string>& extra);

/// JSON object of the aggregates and, with `with_pages`, of every page.
std::string scores_json(const Scores& scores, bool with_pages);

}  // namespace lectern
