#include "data/pairs/prepare.h"

#include "core/error.h"
#include "core/io/file.h"
#include "data/images/file_kind.h"
#include "data/pages/batch.h"
#include "data/pages/pdf.h"
#include "data/shards/grounding.h"
#include "data/shards/pair.h"
#include "data/text/utf8.h"
#include "data/tokenizer/prompt.h"

#include <algorithm>
#include <utility>

namespace lectern::detail {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kPagesDrawnAtOnce = 8;
constexpr std::size_t kMostAnswerBytes = std::size_t{1} << 26;

/// The text of a file without what no answer should end or begin with: a byte order mark, carriage
/// returns, line ends at its end.
std::string answer_of_file(const fs::path& path) {
  std::string text = read_file(path, kMostAnswerBytes);
  if (!is_utf8(text))
    throw PairError("", "not UTF-8", fmt::format("{} must be UTF-8", path.filename().string()));
  if (text.starts_with("\xef\xbb\xbf")) text.erase(0, 3);
  for (std::size_t at = 0; (at = text.find("\r\n", at)) != std::string::npos;) text.erase(at, 1);
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

/// As `lectern ocr` and pdftotext part pages.
std::vector<std::string> parts_of(const std::string& text) {
  for (const std::string_view mark : {std::string_view("\n\n---\n\n"), std::string_view("\f")}) {
    if (text.find(mark) == std::string::npos) continue;
    std::vector<std::string> out;
    std::size_t begin = 0;
    for (std::size_t at; (at = text.find(mark, begin)) != std::string::npos;
         begin = at + mark.size())
      out.push_back(text.substr(begin, at - begin));
    if (begin < text.size()) out.push_back(text.substr(begin));
    return out;
  }
  return {text};
}

bool is_white(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\f") == std::string_view::npos;
}

class Preparation {
 public:
  Preparation(const PairItem& item, const std::string& id, const std::string& source,
              const std::string& document, const PairBuildOptions& options,
              const Tokenizer& tokenizer)
      : item_(item),
        id_(id),
        source_(source),
        document_(document),
        options_(options),
        tokenizer_(tokenizer) {}

  std::vector<PreparedPair> run() {
    std::vector<PreparedPair> out(1);
    out[0].unusable = guarded([&] {
      const std::string answer =
          item_.text_file.empty() ? item_.answer : answer_of_file(item_.text_file);
      std::vector<std::uint8_t> bytes;
      if (!item_.picture.empty()) bytes = read_picture();
      if (!item_.picture.empty() && file_kind(bytes) == FileKind::pdf)
        out = pages_of_pdf(answer);
      else
        out[0].record = record(std::move(bytes), answer, "");
    });
    return out;
  }

 private:
  /// What a fault of this record makes functions throw is its reason; what is no fault of it goes
  /// on.
  template <typename Work>
  UnusableItem guarded(const Work& work) const {
    try {
      work();
      return {};
    } catch (const PairError& error) {
      return {error.kind(), error.reason()};
    } catch (const IoError& error) {
      return {"unreadable", short_reason(error, item_.picture)};
    } catch (const Error& error) {
      return {"unusable", short_reason(error, item_.picture)};
    }
  }

  std::vector<std::uint8_t> read_picture() const {
    std::error_code error;
    if (!fs::exists(item_.picture, error))
      throw PairError("", "no picture", fmt::format("picture {} is not there", item_.name));
    const std::string bytes = read_file(item_.picture, std::size_t{1} << 30);
    std::vector<std::uint8_t> out(bytes.begin(), bytes.end());
    if (file_kind(out) == FileKind::other)
      throw PairError("", "no PNG, JPEG or PDF",
                      fmt::format("picture {} must be PNG, JPEG or PDF, got {}", item_.name,
                                  describe_file_kind(out)));
    return out;
  }

  std::vector<PreparedPair> pages_of_pdf(const std::string& answer) const {
    const std::int64_t pages = read_pdf_info(item_.picture).pages;
    const std::vector<std::string> parts =
        pages == 1 ? std::vector<std::string>{answer} : parts_of(answer);
    if (static_cast<std::int64_t>(parts.size()) != pages)
      throw PairError("", "pages and parts differ",
                      fmt::format("PDF of {} pages must have an answer of as many parts, with a "
                                  "line --- between them, got {}",
                                  pages, parts.size()));
    std::vector<PreparedPair> out(parts.size());
    for (std::int64_t first = 1; first <= pages;) {
      const auto drawn =
          render_pdf_pages(item_.picture, first, std::min(pages, first + kPagesDrawnAtOnce - 1),
                           options_.dots_per_inch);
      for (const PdfPicture& page : drawn) {
        const auto at = static_cast<std::size_t>(page.number - 1);
        out[at].page = pages == 1 ? 0 : page.number;
        if (!page.error.empty())
          out[at].unusable = {"unreadable", page.error};
        else
          out[at].unusable = guarded([&] {
            const std::string name = pages == 1 ? "" : fmt::format("/{}", page.number);
            out[at].record = record(encode_png(page.image), parts[at], name);
            out[at].record.dots_per_inch = options_.dots_per_inch;
          });
      }
      if (drawn.empty()) throw PairError("", "unreadable", "PDF cannot be drawn");
      first = drawn.back().number + 1;
    }
    return out;
  }

  ShardPage record(std::vector<std::uint8_t> picture, const std::string& answer,
                   const std::string& more_of_id) const {
    const bool has_picture = !picture.empty();
    if (is_white(answer)) throw PairError("", "empty answer", "answer must not be empty");
    Pair pair;
    pair.id = id_ + more_of_id;
    pair.document = document_;
    pair.source = source_;
    pair.kind = !item_.kind.empty() ? item_.kind : has_picture ? "pair" : "text";
    pair.picture = std::move(picture);
    pair.prompt = item_.prompt.empty() && has_picture ? options_.prompt : item_.prompt;
    pair.answer = answer;
    try {
      ShardPage out = pair_record(std::move(pair), tokenizer_);
      check_length(out);
      return out;
    } catch (const IoError& error) {
      throw PairError("", "unreadable picture", reason_of_picture(error));
    }
  }

  /// Without the id in front and the place in our source.
  std::string reason_of_picture(const IoError& error) const {
    std::string out = short_reason(error, item_.picture);
    if (const auto at = out.find("\": "); out.starts_with("pair \"") && at != std::string::npos)
      out.erase(0, at + 3);
    return out;
  }

  void check_length(const ShardPage& record) const {
    if (!options_.model) return;
    const PairModel& model = *options_.model;
    for (const auto& [field, ids] :
         {std::pair{"prompt", &record.prompt_ids}, std::pair{"answer", &record.ids}})
      for (const std::int32_t id : *ids)
        if (id >= model.vocabulary)
          throw PairError("", "outside of the vocabulary",
                          fmt::format("{} has token {}, the model's are 0 .. {}", field, id,
                                      model.vocabulary - 1));
    std::int64_t image = 0;
    auto prompt = static_cast<std::int64_t>(record.prompt_ids.size());
    if (record.has_picture()) {
      image = image_token_count(model.view, choose_grid(record.width, record.height, model.view));
      if (record.prompt.empty())
        prompt = static_cast<std::int64_t>(encode_prompt(tokenizer_, options_.own_prompt).size());
    }
    const auto answer = static_cast<std::int64_t>(record.ids.size());
    const std::int64_t sum = (model.has_begin ? 1 : 0) + image + prompt + answer + 1;
    if (sum > model.positions)
      throw PairError(
          "", "too long",
          fmt::format("must have at most {} tokens, as the model has positions, got {}: "
                      "{} of the picture, {} of the prompt, {} of the answer",
                      model.positions, sum, image, prompt, answer));
  }

  const PairItem& item_;
  const std::string &id_, &source_, &document_;
  const PairBuildOptions& options_;
  const Tokenizer& tokenizer_;
};

}  // namespace

std::vector<PreparedPair> prepare_item(const PairItem& item, const std::string& id,
                                       const std::string& source, const std::string& document,
                                       const PairBuildOptions& options,
                                       const Tokenizer& tokenizer) {
  return Preparation(item, id, source, document, options, tokenizer).run();
}

}  // namespace lectern::detail
