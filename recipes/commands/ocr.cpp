// lectern ocr: pictures and PDFs to Markdown.
#include "core/error.h"
#include "core/io/file.h"
#include "core/parallel.h"
#include "data/pages/pdf.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/commands/command.h"
#include "recipes/machine/device.h"
#include "recipes/read/page_reader.h"
#include "recipes/read/reader.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cctype>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>

namespace lectern::commands {
namespace {

struct OcrOptions {
  std::string checkpoint, out, dtype = "fp32", device = "cpu";
  std::vector<std::string> files;
  ReaderArgs reader;
  std::int64_t max_tokens = 0, slots = 0;
  double dots_per_inch = 0;
  std::int64_t threads = 0;
  bool json = false, by_pieces = false, by_page = false;
};

constexpr std::int64_t kPagesAtOnce = 8;  // of a PDF, so that a book does not fill the memory
constexpr double kPageDpi = 144;
constexpr std::int64_t kPageTokens = 1024;

/// How this model reads pages, as the user has it.
ReadingSettings reading_settings(const OcrOptions& options, const LoadedModel& loaded) {
  ReadingSettings out = loaded.model->config().reading;
  if (options.by_pieces) out.by_pieces = true;
  if (options.by_page) out.by_pieces = false;
  return out;
}

bool is_pdf(const std::filesystem::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension == ".pdf";
}

/// What is known of a file while its pages are in the batch.
struct FileInHand {
  std::size_t number = 0;  ///< in the command line
  std::int64_t pages = 0;  ///< handed out so far
  bool is_whole = false;   ///< no more pages will come
  std::string error;       ///< why it could not be read
  std::vector<std::string> texts;

  bool is_done() const { return is_whole && static_cast<std::int64_t>(texts.size()) == pages; }
};

/// The pages of all files in order. A file that cannot be read is remembered with its error; the
/// files after it are read all the same.
class PagesOfFiles {
 public:
  PagesOfFiles(const OcrOptions& options, const ReadingSettings& settings)
      : options_(options), settings_(settings) {}

  std::optional<Image> next() {
    for (;;) {
      if (!drawn_.empty()) {
        Image page = std::move(drawn_.front());
        drawn_.pop_front();
        ++files_.back().pages;
        file_of_page_.push_back(files_.back().number);
        return page;
      }
      if (!files_.empty() && !files_.back().is_whole) {
        guarded([&] { draw_more(); });
        continue;
      }
      if (files_.size() == options_.files.size()) return std::nullopt;
      files_.emplace_back();
      files_.back().number = files_.size() - 1;
      at_ = options_.files[files_.back().number];
      guarded([&] { open(); });
    }
  }

  /// The text of the next page.
  void add(std::string text) {
    FileInHand& file = files_[file_of_page_.front()];
    file_of_page_.pop_front();
    file.texts.push_back(std::move(text));
    const auto read = static_cast<std::int64_t>(file.texts.size());
    const bool is_some = read % kPagesAtOnce == 0 || file.is_done();
    if (is_some && is_pdf(options_.files[file.number]))
      fmt::print(stderr, "{}: {} pages read\n", options_.files[file.number], read);
  }

  /// The next file in order of which nothing more is to come; null when there is none yet.
  const FileInHand* next_done() {
    if (given_out_ == files_.size() || !files_[given_out_].is_done()) return nullptr;
    return &files_[given_out_++];
  }

 private:
  /// Opening and drawing: what a damaged file makes them throw is that file's error.
  template <typename Work>
  void guarded(const Work& work) {
    try {
      work();
    } catch (const Error& error) {
      files_.back().error = error.what();
      files_.back().is_whole = true;
    }
  }

  void open() {
    if (is_pdf(at_)) {
      drawn_pages_ = 0;
      pdf_pages_ = read_pdf_info(at_).pages;
      files_.back().is_whole = pdf_pages_ == 0;
      return;
    }
    Image picture = read_image(at_);
    if (settings_.by_pieces && options_.dots_per_inch > 0)
      picture = rescaled(std::move(picture), options_.dots_per_inch, settings_.piece_dpi);
    drawn_.push_back(std::move(picture));
    files_.back().is_whole = true;
  }

  void draw_more() {
    const std::int64_t last = std::min(pdf_pages_, drawn_pages_ + kPagesAtOnce);
    for (PdfPicture& page : render_pdf_pages(at_, drawn_pages_ + 1, last, pdf_dots_per_inch())) {
      if (!page.error.empty())
        fail<IoError>(fmt::format("{}: page {}: {}", at_.string(), page.number, page.error));
      drawn_.push_back(std::move(page.image));
      drawn_pages_ = page.number;
    }
    files_.back().is_whole = drawn_pages_ == pdf_pages_;
  }

  double pdf_dots_per_inch() const {
    if (settings_.by_pieces) return settings_.piece_dpi;
    return options_.dots_per_inch > 0 ? options_.dots_per_inch : kPageDpi;
  }

  const OcrOptions& options_;
  const ReadingSettings& settings_;
  std::vector<FileInHand> files_;  // by number, those that have been opened
  std::filesystem::path at_;       // of files_.back()
  std::int64_t pdf_pages_ = 0, drawn_pages_ = 0;
  std::deque<Image> drawn_;               // of files_.back(), not handed out yet
  std::deque<std::size_t> file_of_page_;  // pages handed out whose texts are not there yet
  std::size_t given_out_ = 0;
};

std::string join_pages(const std::vector<std::string>& texts) {
  std::string markdown;
  for (const std::string& text : texts) {
    if (!markdown.empty()) markdown += "\n\n---\n\n";  // a page break
    markdown += text;
  }
  return markdown + "\n";
}

std::filesystem::path markdown_path(const OcrOptions& options, const std::string& file) {
  return std::filesystem::path(options.out) / (std::filesystem::path(file).stem().string() + ".md");
}

/// Two files of the same stem would write one over the other.
void check_targets(const OcrOptions& options) {
  std::map<std::filesystem::path, std::string> sources;
  for (const std::string& file : options.files) {
    const auto target = markdown_path(options, file);
    const auto [at, is_new] = sources.emplace(target, file);
    if (!is_new)
      fail<ConfigError>(
          fmt::format("ocr: {} and {} would both become {}", at->second, file, target.string()));
  }
}

ReaderArgs reader_args(const OcrOptions& options, bool by_pieces) {
  ReaderArgs out = options.reader;
  if (by_pieces) out.batch = kPiecesAtOnce;
  if (options.slots > 0) out.batch = options.slots;
  out.max_new_tokens = options.max_tokens > 0 ? options.max_tokens
                       : by_pieces            ? kPieceTokens
                                              : kPageTokens;
  return out;
}

/// Writes or prints what was read of a file; adds it to the results.
void give_out(const OcrOptions& options, const FileInHand& file, nlohmann::json& results) {
  const std::string& name = options.files[file.number];
  if (!file.error.empty()) {
    std::string line = file.error;
    std::replace(line.begin(), line.end(), '\n', ' ');
    fmt::print(stderr, "lectern: {}\n", line);
    results.push_back({{"file", name}, {"error", file.error}});
    return;
  }
  if (!options.out.empty()) {
    const auto target = markdown_path(options, name);
    write_file(target, join_pages(file.texts));
    fmt::print(stderr, "{} -> {} ({} pages)\n", name, target.string(), file.texts.size());
  } else if (!options.json) {
    fmt::print("{}", join_pages(file.texts));
  }
  results.push_back({{"file", name}, {"pages", file.texts}});
}

void report(const GenerationStatistics& done, std::int64_t slots) {
  if (done.prompt_tokens == 0) return;
  fmt::print(stderr, "first tokens after {:.2f} s; then {} tokens at {:.1f} tokens/s",
             done.encode + done.prefill, done.decoded_tokens, done.tokens_per_second());
  if (done.decode_steps > 0)
    fmt::print(stderr, ", in {} steps: {:.1f} of {} slots busy", done.decode_steps,
               static_cast<double>(done.decoded_tokens) / static_cast<double>(done.decode_steps),
               slots);
  fmt::print(stderr, "\n");
}

void run_ocr(const OcrOptions& options) {
  if (options.threads > 0) set_thread_count(static_cast<int>(options.threads));
  if (!options.out.empty()) check_targets(options);
  const Device device = use_device(options.device);
  const LoadedModel loaded =
      load_model_folder(options.checkpoint.empty() ? shipped_model().string() : options.checkpoint,
                        weight_dtype(options.dtype));
  loaded.model->store().to(device);
  const ReadingSettings settings = reading_settings(options, loaded);
  const ReaderArgs args = reader_args(options, settings.by_pieces);
  Reader reader(*loaded.model, loaded.tokenizer, args);
  if (!options.out.empty()) std::filesystem::create_directories(options.out);
  nlohmann::json results = nlohmann::json::array();
  PagesOfFiles pages(options, settings);
  const auto give_out_done = [&] {
    while (const FileInHand* file = pages.next_done()) give_out(options, *file, results);
  };
  read_pages(
      reader, settings, [&] { return pages.next(); },
      [&](std::string text) {
        pages.add(std::move(text));
        give_out_done();
      });
  give_out_done();  // files after the last page
  if (options.json) fmt::print("{}\n", results.dump());
  report(reader.statistics(), args.batch);
  const auto failed = std::count_if(results.begin(), results.end(), [](const nlohmann::json& file) {
    return file.contains("error");
  });
  if (failed > 0) throw AlreadyTold{};
}

}  // namespace

void add_ocr(Command app) {
  auto options = std::make_shared<OcrOptions>();
  Command command = app.add_subcommand("ocr", "read images and PDFs; Markdown on stdout");
  command.add_option("FILE", options->files, "PNG, JPEG or PDF").required();
  command.add_option("--checkpoint", options->checkpoint,
                     "model, checkpoint or run folder; default: the small one of recipes/nano");
  command.add_option("--out", options->out, "write <stem>.md files here instead of stdout");
  command.add_option("--prompt", options->reader.prompt, "default: the model's own");
  command
      .add_option("--max-tokens", options->max_tokens,
                  "longest answer; default: 1024 for a page, 64 for a piece")
      .range(1, 1 << 20);
  command
      .add_option("--slots", options->slots,
                  "sequences decoded together: a page (or piece) takes one, and one more for each "
                  "of its tiles; default: 16 for pages, 64 for pieces")
      .range(1, 1 << 16);
  Option pieces = command.add_flag("--pieces", options->by_pieces,
                                   "read each page in runs of words, which are found by their ink; "
                                   "default: as the model's config.json says (read_by)");
  command.add_flag("--whole-pages", options->by_page, "read each page as a whole").excludes(pieces);
  command
      .add_option("--no-repeat-ngram", options->reader.guard.ngram,
                  "forbid repeating n-grams of this length; 0: off")
      .range(0, 1024);
  command
      .add_option("--repeat-window", options->reader.guard.window,
                  "tokens that --no-repeat-ngram looks back")
      .range(1, 1 << 20);
  command
      .add_option("--dpi", options->dots_per_inch,
                  "whole pages: resolution at which PDF pages are drawn, 144. Pieces: resolution "
                  "of the picture files, which are scaled to the model's; without it they stay as "
                  "they are. PDFs are then drawn at the model's")
      .range(18.0, 1200.0);
  command.add_option("--device", options->device, "cpu or cuda").one_of({"cpu", "cuda"});
  command.add_option("--dtype", options->dtype, "of the weights: fp32 or bf16")
      .one_of({"fp32", "bf16"});
  command.add_option("--threads", options->threads, "CPU threads; 0: all cores").range(0, 1024);
  command.add_flag("--json", options->json, "print one JSON array instead of Markdown");
  command.callback([options] { run_ocr(*options); });
}

}  // namespace lectern::commands
